import numpy as np
import pytest
from PIL import Image

from keras_vit import Preprocessing, load_data
from keras_vit.data.folders import find_images

SMALL = Preprocessing(image_size=8)


def paint(path, color, size=(20, 14), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten: PNG and JPEG, colour and grey, of different sizes."""
    for index in range(10):
        kind, size = ("png", "jpg")[index % 2], (20 + index, 30 - index)
        paint(tmp_path / f"red/{index}.{kind}", (200, 10 * index, 0), size)
        paint(tmp_path / f"white/sub/{index}.{kind}", 200 + index, size, "L")
    return tmp_path


def test_a_subfolder_is_a_class(folder):
    data = load_data(str(folder), SMALL)
    assert data.class_names == ("red", "white")
    assert sum(data.counts.values()) == 20
    assert min(data.counts.values()) >= 2, "one of each class"
    for images, labels in data.test.as_numpy_iterator():
        assert images.shape[1:] == (8, 8, 3)
        red_only = images[..., 2].mean(axis=(1, 2)) < 100
        np.testing.assert_array_equal(red_only, labels == 0)


def test_given_splits_are_kept_and_missing_ones_cut_from_train(
    folder, tmp_path_factory
):
    root = tmp_path_factory.mktemp("splits")
    (folder / "red").rename(root / "unused")
    for split, count in (("train", 10), ("test", 3)):
        for name in ("a", "b"):
            for index in range(count):
                paint(root / f"{split}/{name}/{index}.png", (index, 0, 0))
    (root / "unused").rename(folder / "red")
    data = load_data(str(root), SMALL)
    assert data.counts["test"] == 6
    assert data.counts["train"] + data.counts["validation"] == 20


def test_images_of_one_size_need_no_preprocessing(tmp_path):
    for name in ("a", "b"):
        for index in range(4):
            paint(tmp_path / f"{name}/{index}.png", index, (7, 5), "L")
    images, _ = next(iter(load_data(str(tmp_path)).train))
    assert images.shape[1:] == (5, 7, 1)


def test_images_of_many_sizes_need_one(folder):
    with pytest.raises(ValueError, match="differ in size"):
        load_data(str(folder))


def test_hidden_files_and_folders_are_passed_over(folder):
    for place in ("red/.ipynb_checkpoints/0.png", "red/.hidden.png", "__MACOSX/a.png"):
        paint(folder / place, 0)
    found = find_images(folder)
    assert found.class_names == ("red", "white")
    assert len(found.files["train"]) == 20


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Train", "Test"], {"train", "test"}),
        (["training", "valid", "testing"], {"train", "validation", "test"}),
        (["train", "test", "__MACOSX"], {"train", "test"}),
        (["train"], {"train"}),
    ],
)
def test_folders_of_splits_are_known_by_many_names(names, expected, tmp_path):
    for name in names:
        for kind in ("a", "b"):
            paint(tmp_path / name / kind / "1.png", 0)
    found = find_images(tmp_path)
    assert found.class_names == ("a", "b")
    assert set(found.files) == expected


@pytest.mark.parametrize(
    "names", [["train", "val", "valid"], ["test", "val"], ["train", "test", "more"]]
)
def test_folders_that_look_like_splits_never_become_classes(names, tmp_path):
    for name in names:
        for kind in ("a", "b"):
            paint(tmp_path / name / kind / "1.png", 0)
    with pytest.raises(
        ValueError, match="A folder with splits.*" + ", ".join(sorted(names))
    ):
        find_images(tmp_path)


def test_train_may_be_a_class(tmp_path):
    for name in ("bus", "train"):
        paint(tmp_path / name / "1.png", 0)
    assert find_images(tmp_path).class_names == ("bus", "train")


def broken_files(folder):
    (folder / "red/notes.txt").write_text("not an image")
    whole = (folder / "red/0.png").read_bytes()
    (folder / "red/cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "white/empty.jpg").write_bytes(b"")
    return {"notes.txt", "cut.png", "empty.jpg"}


def test_broken_files_are_left_out_and_named(folder):
    names = broken_files(folder)
    found = find_images(folder)
    assert {path.name for path in found.skipped} == names
    assert len(found.files["train"]) == 20


def test_broken_files_are_refused_if_asked(folder):
    broken_files(folder)
    with pytest.raises(ValueError, match="3 unreadable: .*cut.png"):
        load_data(str(folder), SMALL, broken="refuse")


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two subfolders.*0 in"):
        load_data(str(tmp_path), SMALL)
    paint(tmp_path / "only/1.png", 0)
    with pytest.raises(ValueError, match="at least two subfolders.*1 in"):
        load_data(str(tmp_path), SMALL)


def test_a_class_without_images_is_named(folder):
    (folder / "blue").mkdir()
    with pytest.raises(ValueError, match="none of blue"):
        load_data(str(folder), SMALL)


def test_splits_with_different_classes_are_refused(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/c"):
        paint(tmp_path / place / "1.png", 0)
    with pytest.raises(ValueError, match="Received: c in"):
        load_data(str(tmp_path), SMALL)
