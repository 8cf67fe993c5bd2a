"""Which numbers a file holds and computes with, and how they are chosen."""
