import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras_vit_device.pixels import fit_image, open_image
from PIL import Image

from keras_vit import Preprocessing, load_data
from keras_vit.data import batches as batches_module
from keras_vit.data import pipeline
from keras_vit.data.arrays import from_arrays, hold_out
from keras_vit.data.sources import _import_tfds, _tfds_slices

FASHION = "fashion_mnist/3.0.1"
has_fashion = pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", "-"), FASHION)),
    reason="Fashion-MNIST is not prepared in TFDS_DATA_DIR",
)


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def test_digits_are_whole_and_scaled_to_255():
    data = load_data("digits")
    assert sum(data.counts.values()) == 1797
    assert data.class_names == tuple("0123456789")
    images, labels = next(iter(batches(data.test)))
    assert (images.shape[1:], images.dtype, labels.dtype) == (
        (8, 8, 1),
        np.uint8,
        np.int32,
    )
    assert (images.min(), images.max()) == (0, 255)


def test_no_image_is_in_two_splits():
    data = load_data("digits")
    splits = (data.train.unbatch(), data.validation.unbatch(), data.test.unbatch())
    seen = [{image.tobytes() for image, _ in batches(split)} for split in splits]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_every_class_is_held_out_in_about_the_same_part():
    labels = np.repeat([0, 1, 2], [1000, 500, 3])
    rows = hold_out([str(i) for i in range(1503)], labels)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1503))
    for split, part in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        counts = np.bincount(labels[rows[split]], minlength=3)
        # Five standard deviations of 500 draws are at most 0.1.
        np.testing.assert_allclose(counts[:2] / [1000, 500], part, atol=0.1)
        assert counts[2] == 1


def test_added_images_move_no_image_between_splits():
    keys = [f"cat/{i}.jpg" for i in range(200)]
    before, after = hold_out(keys[:100], [0] * 100), hold_out(keys, [0] * 200)
    for split, rows in before.items():
        assert set(rows) <= set(after[split])


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(ValueError, match="at least 3 images.*2 of class 1"):
        hold_out(list("abcde"), [0, 0, 0, 1, 1])


def test_the_seed_orders_the_training_images_and_nothing_else():
    def labels(seed, split):
        data = load_data("digits", seed=seed)
        return np.concatenate([y for _, y in batches(getattr(data, split))])

    np.testing.assert_array_equal(labels(1, "train"), labels(1, "train"))
    assert (labels(1, "train") != labels(2, "train")).any()
    np.testing.assert_array_equal(labels(1, "test"), labels(2, "test"))


def test_the_order_does_not_depend_on_the_global_seed():
    orders = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        orders.append(
            np.concatenate([y for _, y in batches(load_data("digits").train)])
        )
    np.testing.assert_array_equal(*orders)


def test_training_images_are_shuffled_anew_each_epoch():
    train = load_data("digits").train
    first, second = (np.concatenate([y for _, y in batches(train)]) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("count", [5, 64, 100, 127, 191, 640, 1000])
def test_the_sample_is_spread_over_all_training_images(count):
    """A folder's come class by class, and ranges of activations are chosen by it."""
    images = np.zeros((count, 4, 4, 1), "uint8")
    rows = {"train": np.arange(count), "validation": [0], "test": [0]}
    source = from_arrays(
        "rows", list(map(str, range(count))), images, np.arange(count), rows
    )
    [(_, labels)] = batches(source.load().sample)
    assert len(labels) == min(count, 64) and labels[0] == 0
    gaps = np.diff([*labels, count])
    assert gaps.min() > 0 and gaps.max() < count / len(labels) + max(1, count / 10)


def test_grey_images_serve_a_model_of_three_channels():
    data = load_data("digits", Preprocessing(image_size=16, channels=3))
    images, _ = next(iter(batches(data.test)))
    assert images.shape[1:] == (16, 16, 3)
    assert (images[..., 0] == images[..., 2]).all()


def test_training_sees_what_the_device_sees(tmp_path, rng):
    """The pipeline resizes with the very function of the runtime, also from files."""
    rule = {"image_size": (9, 7), "resize": "crop", "interpolation": "bicubic"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(6):
            pixels = rng.integers(0, 256, (20, 30 + index, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    data = load_data(str(tmp_path), Preprocessing(**rule))
    seen = {image.tobytes() for image, _ in data.train.unbatch().as_numpy_iterator()}
    files = [open_image(path) for path in tmp_path.rglob("*.png")]
    device = {fit_image(image, channels=3, **rule).tobytes() for image in files}
    assert len(seen) == data.counts["train"]
    assert seen <= device


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 channels.*channels=4"):
        load_data("digits", Preprocessing(image_size=8, channels=4))


def test_a_folder_too_large_for_memory_is_shuffled_whole(tmp_path, monkeypatch):
    for name, value in (("a", 0), ("b", 255)):
        (tmp_path / name).mkdir()
        for index in range(60):
            path = tmp_path / name / f"{index}.png"
            Image.new("L", (2, 2), value).save(path)
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    monkeypatch.setattr(batches_module, "SHUFFLE_WINDOW", 4)
    data = load_data(str(tmp_path), batch_size=16)
    first_epoch = batches(data.train)
    mixed = [0.1 < labels.mean() < 0.9 for _, labels in first_epoch]
    assert all(mixed), "a batch of one class: shuffled in a window only"
    for images, labels in first_epoch:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels * 255)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"train", "test"},
            {"train": "train[:90%]", "validation": "train[90%:100%]", "test": "test"},
        ),
        (
            {"train", "validation", "test"},
            {"train": "train[:100%]", "validation": "validation", "test": "test"},
        ),
        (
            {"train", "validation"},
            {
                "train": "train[:90%]",
                "validation": "train[90%:100%]",
                "test": "validation",
            },
        ),
        (
            {"train"},
            {
                "train": "train[:70%]",
                "validation": "train[70%:80%]",
                "test": "train[80%:100%]",
            },
        ),
    ],
)
def test_missing_tfds_splits_are_cut_from_train(given, expected):
    assert _tfds_slices(given, "x") == expected


@has_fashion
def test_a_tfds_set_has_its_own_test_split_and_names():
    data = load_data("fashion_mnist", batch_size=500)
    assert data.counts == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert data.class_names[9] == "Ankle boot"
    images, labels = next(iter(data.test.as_numpy_iterator()))
    assert images.shape == (500, 28, 28, 1)
    assert set(labels) == set(range(10))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digitss", ["No folder and no data set", "digits"]),
        ("fashion_mnst", ["Nearest: fashion_mnist"]),
        ("./nowhere", ["no folder of images at './nowhere'"]),
        ("imdb_reviews", ["not one of images"]),
        ("", ["needs a name"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, words):
    with pytest.raises(ValueError) as error:
        load_data(name)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_data_sets_are_read_beside_an_older_protobuf(tmp_path, monkeypatch):
    """As on Colab, where the import is half done without a word, and then whole."""
    check = "TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK"
    package = tmp_path / "tensorflow_datasets"
    package.mkdir()
    code = f"import os\nif os.environ.get({check!r}) == 'true':\n    core = 'whole'\n"
    (package / "__init__.py").write_text(code)
    for name in [it for it in sys.modules if it.startswith("tensorflow_datasets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with _import_tfds() as tfds:
        assert tfds.core == "whole" and os.environ[check] == "true"
    assert check not in os.environ
    del sys.modules["tensorflow_datasets"]
