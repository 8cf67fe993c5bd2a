"""What a model's file says of the images that it was trained on."""

import zipfile

import numpy as np
import pytest

from keras_vit import build_vit
from keras_vit.data import find_source
from keras_vit.data.trained_on import (
    hashes,
    known_records,
    make_record,
    overlap,
    read_records,
    write_records,
)
from keras_vit.files import load_model, save_model
from tests.conftest import write_images


def test_a_sketch_tells_the_part_of_the_training_images_that_is_there(tmp_path):
    source = find_source(str(write_images(tmp_path / "data", 250)))
    record = make_record(source)
    assert record["dataset"] == "data" and "/" not in record["dataset"]
    assert record["images"] == 500 - source.splits["test"].count
    assert len(record["sketch"]) == 64
    train, test = (hashes(source.paths(name)) for name in ("train", "test"))
    assert overlap([record], set(test)) == (0, 64)
    found, sampled = overlap([record], set(train[::2]))
    # Half of 64, but for validation images; five standard deviations are 20.
    assert 10 <= found <= 48 and sampled == 64
    # The one of several trainings that is nearest.
    other = {"dataset": "other", "sketch": ["0" * 16]}
    assert overlap([other, record], set(train[::2])) == (found, 64)


def test_a_data_set_that_is_no_folder_is_known_by_name_alone():
    assert make_record(find_source("digits")) == {"dataset": "digits", "images": 1417}
    assert overlap([{"dataset": "digits", "images": 3}], {"a"}) == (0, 0)


def test_records_are_read_back_and_keras_does_not_mind_them(tmp_path, tiny):
    path, record = tmp_path / "m.keras", {"dataset": "a", "images": 1, "sketch": ["f"]}
    model = build_vit(tiny())
    save_model(model, path)
    assert read_records(path) == []
    write_records(path, [{"dataset": "earlier"}])
    write_records(path, [record])
    assert read_records(path) == [record]
    assert zipfile.ZipFile(path).testzip() is None
    for before, after in zip(model.weights, load_model(path).weights, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "given", [None, [], {"trained_on": 3}, {"trained_on": [3, {}, {"dataset": 3}]}]
)
def test_what_is_no_record_is_none(given, tmp_path):
    assert known_records(given) == []
    assert known_records({"trained_on": [{"dataset": "a", "sketch": [[]]}]}) == []
    (tmp_path / "cut.keras").write_bytes(b"PK\x03\x04")
    assert read_records(tmp_path / "cut.keras") == read_records(tmp_path / "no") == []


def test_images_that_are_gone_have_no_hash(tmp_path):
    assert hashes([tmp_path / "gone.png"]) == []
