"""What is a class, what is a split, and what is said of the rest."""

import os
import unicodedata

import pytest
from PIL import Image

from keras_vit.data.folders import find_images


def paint(root, *places, count=1):
    for place in places:
        for index in range(count):
            path = root / place / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), index).save(path)


def counts(found):
    return {split: len(pairs) for split, pairs in found.files.items()}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train", "Test"),
        ("trainset", "testset"),
        ("train_images", "test_images"),
        ("train2017", "test2017"),
        ("zoo-training", "zoo-testing"),
        ("archive/data/train", "archive/data/test"),
    ],
)
def test_folders_of_splits_are_known_by_what_their_names_share(train, test, tmp_path):
    paint(tmp_path, f"{train}/cat", f"{train}/dog", count=2)
    paint(tmp_path, f"{test}/cat", f"{test}/dog")
    found = find_images(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert counts(found) == {"train": 4, "test": 2}
    assert any("has splits: train" in line for line in found.remarks)


@pytest.mark.parametrize(
    "names", [("bus", "train"), ("train_station", "test_tube", "bus"), ("val", "loire")]
)
def test_a_word_of_a_split_alone_may_be_a_class(names, tmp_path):
    paint(tmp_path, *names)
    found = find_images(tmp_path)
    assert set(found.class_names) == set(names)
    assert counts(found) == {"train": len(names)} and not found.remarks


@pytest.mark.parametrize("test", ["test", "test/test", "test/unknown", "test1"])
def test_test_images_without_classes_are_left_out_and_counted(test, tmp_path):
    paint(tmp_path, "train/cat", "train/dog")
    paint(tmp_path, test, count=5)
    found = find_images(tmp_path)
    assert found.class_names == ("cat", "dog") and counts(found) == {"train": 2}
    assert found.left_out.counts == {"image without a class folder": 5}
    assert "has 5 images and no class folders" in found.remarks[1]


def test_images_beside_the_splits_and_the_classes_are_counted(tmp_path):
    paint(tmp_path, "seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b")
    paint(tmp_path, "seg_pred/seg_pred", "seg_train", ".", count=3)
    (tmp_path / "README.md").write_text("no image")
    found = find_images(tmp_path)
    assert counts(found) == {"train": 2, "test": 2}
    beside = "image in a folder beside the splits, without class folders"
    without = "image without a class folder"
    assert found.left_out.counts == {beside: 3, without: 6, "no image": 1}


@pytest.mark.parametrize("place", [".", "train"])
def test_images_whose_names_tell_the_class_are_refused_with_what_to_do(place, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    for name in ("cat", "dog"):
        for index in range(4):
            Image.new("L", (4, 4)).save(tmp_path / place / f"{name}.{index}.jpg")
    with pytest.raises(ValueError, match="8 images in .* begin with cat, dog: move"):
        find_images(tmp_path)
    paint(tmp_path, "test1", "train", count=3)
    with pytest.raises(ValueError, match="named like splits.*images in .*train'"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], "fold1, fold2 .* a, b in each"),
        (["raw/a", "raw/b", "resized/a", "resized/b"], "parts of the data"),
        (["train/a", "train/b", "holdout/a", "holdout/b"], "parts of the data"),
        (["images", "labels"], "Images and their annotations lie apart"),
        (["img", "masks"], "Images and their annotations lie apart"),
        (["train", "test"], "named like splits"),
        (["train/fold1/a", "train/fold1/b", "train/fold2/a", "train/fold2/b"], "parts"),
        (["images/a", "images/b", "masks/a", "masks/b"], "annotations lie apart"),
        (["a", "b", "all/a", "all/b"], "all' holds folders named as those beside it"),
        (["test/a", "test/b", "val/a", "val/b"], "A folder with splits"),
        (
            ["train/a", "train/b", "test/a", "test/b", "more/a", "more/b"],
            "nothing else",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(places, words, tmp_path):
    paint(tmp_path, *places)
    with pytest.raises(ValueError, match=words):
        find_images(tmp_path)


def test_a_folder_around_the_classes_is_looked_into_and_told(tmp_path):
    paint(tmp_path, "dataset/dataset/a", "dataset/dataset/b", "__MACOSX/dataset")
    found = find_images(tmp_path)
    assert found.class_names == ("a", "b")
    assert found.remarks == (
        f"The classes are looked for in '{tmp_path / 'dataset/dataset'}'.",
    )


@pytest.mark.parametrize("beside", ["meta", "Annotation/a", "labels"])
def test_folders_without_images_beside_the_images_are_counted(beside, tmp_path):
    paint(tmp_path, "images/a", "images/b")
    (tmp_path / beside).mkdir(parents=True)
    (tmp_path / beside / "list.txt").write_text("no image")
    found = find_images(tmp_path)
    assert found.class_names == ("a", "b")
    assert found.left_out.counts == {"folder without images": 1}


def test_classes_with_the_same_subfolders_stay_the_classes_and_it_is_told(tmp_path):
    paint(tmp_path, "benign/40X", "benign/100X", "malignant/40X", "malignant/100X")
    found = find_images(tmp_path)
    assert found.class_names == ("benign", "malignant")
    assert "not the subfolders that each has: 100X, 40X" in found.remarks[0]


def test_splits_within_each_class_are_taken(tmp_path):
    paint(tmp_path, "cat/train", "dog/train", count=3)
    paint(tmp_path, "cat/test", "dog/test")
    found = find_images(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert counts(found) == {"train": 6, "test": 2}
    assert "splits of its own: train, test" in found.remarks[0]


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_name_in_two_spellings_is_one_class(split, tmp_path):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    paint(tmp_path, f"{split}{names[0]}", f"{split}{names[1]}", f"{split}tea")
    if split:
        paint(tmp_path, f"test/{names[1]}", "test/tea")
    found = find_images(tmp_path)
    assert found.class_names == (names[0], "tea")
    assert counts(found)["train"] == 3
    assert any("is written in 2 ways: one class" in line for line in found.remarks)


def test_two_classes_of_one_folder_are_refused(tmp_path):
    paint(tmp_path, "cat", "dog")
    os.symlink("dog", tmp_path / "puppy")
    with pytest.raises(ValueError, match="Received: dog, puppy in"):
        find_images(tmp_path)
