"""The tests, a package: others install one of this name too."""
