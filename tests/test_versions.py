"""The oldest packages that are allowed are those that every test is run beside."""

import configparser
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def pins(name):
    """Package -> versions in a file of constraints, the lowest first."""
    found = {}
    for line in (ROOT / f"tests/versions/{name}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            package, version = line.partition(";")[0].split("==")
            found.setdefault(package, []).append(version.strip())
    return {package: sorted(versions) for package, versions in found.items()}


def test_lower_bounds_are_the_versions_that_are_tried():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    bounds = dict(line.split(">=") for line in lines if ">=" in line)
    tried = pins("lowest")
    assert bounds.pop("ai-edge-litert")  # of which litert-quantizer takes one version
    assert bounds.keys() == tried.keys() and len(bounds) >= 3
    for package, bound in bounds.items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", tried[package][0]), package


def test_colab_has_nothing_older():
    lowest, colab = pins("lowest"), pins("colab")
    for package in lowest.keys() & colab.keys():
        oldest, had = (
            tuple(map(int, it[package][0].split("."))) for it in (lowest, colab)
        )
        assert oldest <= had, package
