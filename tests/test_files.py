import os

import keras
import numpy as np
import pytest
from keras_vit_device.files import new_folder, whole_file

from keras_vit import build_vit
from keras_vit.files import load_model, save_model


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_with_nothing_finished_is_new(tmp_path):
    assert new_folder(tmp_path / "new") == tmp_path / "new"
    (tmp_path / ".partial-run.json").write_text("{")  # a kill left it
    assert new_folder(tmp_path) == tmp_path
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds"):
        new_folder(tmp_path)


def test_the_disk_has_a_file_before_its_name(tmp_path, monkeypatch):
    """Else a power cut could leave the name, and nothing behind it."""
    path, named = tmp_path / "file.txt", []
    monkeypatch.setattr(os, "fsync", lambda file: named.append(path.exists()))
    with whole_file(path) as partial:
        partial.write_text("new")
    assert named == [False]


def test_a_saved_model_has_no_optimizer(tiny, tmp_path):
    model = build_vit(tiny(depth=1))
    model.compile("adam", "mse")
    save_model(model, tmp_path / "small.keras")
    model.save(tmp_path / "large.keras")
    assert not getattr(load_model(tmp_path / "small.keras"), "optimizer", None)
    sizes = [(tmp_path / f"{n}.keras").stat().st_size for n in ("small", "large")]
    assert sizes[0] < sizes[1]


def test_a_missing_or_cut_off_model_is_one_clear_line(tiny, tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        load_model(tmp_path / "none.keras")
    build_vit(tiny(depth=1)).save(tmp_path / "model.keras")
    whole = (tmp_path / "model.keras").read_bytes()
    for part in (0, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "cut.keras").write_bytes(whole[:part])
        with pytest.raises(ValueError, match="cut off or is no Keras model") as error:
            load_model(tmp_path / "cut.keras")
        assert "\n" not in str(error.value)


def test_a_text_file_is_no_model(tmp_path):
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ValueError, match="no Keras model"):
        load_model(tmp_path / "text.keras")


def test_a_loaded_model_takes_and_gives_one_tensor(tiny, tmp_path):
    save_model(build_vit(tiny()), tmp_path / "model.keras")
    model = load_model(tmp_path / "model.keras")
    image = keras.Input((8, 12, 3))
    assert model(image).shape == (None, 3)
    assert model(np.zeros((2, 8, 12, 3))).shape == (2, 3)
