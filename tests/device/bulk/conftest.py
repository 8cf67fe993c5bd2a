import pytest
from keras_vit_device import bulk

from .running import DIGITS, write_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 600)


@pytest.fixture(scope="session")
def whole(digits, tmp_path_factory):
    """The CSV of a run that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "whole.csv"
    summary = bulk.classify_folder(DIGITS, digits, path, workers=2)
    assert (summary.images, summary.unreadable) == (600, ())
    return path.read_bytes()
