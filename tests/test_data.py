import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit import Preprocessing, load_data
from keras_vit.data import _tfds_slices, hold_out
from keras_vit.pipeline import fit_image

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


def test_every_class_is_held_out_in_the_same_part():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    rows = hold_out([str(i) for i in range(160)], labels)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(160))
    assert np.bincount(labels[rows["test"]]).tolist() == [20, 10, 2]
    assert np.bincount(labels[rows["validation"]]).tolist() == [10, 5, 1]


def test_adding_an_image_moves_no_image_from_test_to_train():
    keys = [f"cat/{i}.jpg" for i in range(100)]
    before = hold_out(keys, [0] * 100)
    after = hold_out(["cat/new.jpg", *keys], [0] * 101)
    test = {keys[row] for row in before["test"]}
    train = {["cat/new.jpg", *keys][row] for row in after["train"]}
    # One place at the edge may shift, since parts are counted.
    assert len(test & train) <= 1


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


def test_training_images_are_shuffled_anew_each_epoch():
    train = load_data("digits").train
    first, second = (np.concatenate([y for _, y in batches(train)]) for _ in range(2))
    assert (first != second).any()


def test_grey_images_serve_a_model_of_three_channels():
    data = load_data("digits", Preprocessing(image_size=16, channels=3))
    images, _ = next(iter(batches(data.test)))
    assert images.shape[1:] == (16, 16, 3)
    assert (images[..., 0] == images[..., 2]).all()


def photo(height, width):
    """A smooth colour picture, so that resizing has no aliasing to differ in."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + y / 29 + phase) for phase in (0, 1, 2)]
    return np.round(127.5 + 127 * np.stack(waves, axis=-1)).astype("uint8")


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [1.0, 0.8])
@pytest.mark.parametrize("shape", [(200, 300), (61, 40)])
def test_training_and_the_device_see_the_same_pixels(
    resize, interpolation, crop, shape
):
    from keras_vit_export.runtime import fit_image as fit_on_device

    rule = {
        "image_size": (32, 48),
        "channels": 3,
        "resize": resize,
        "interpolation": interpolation,
        "crop": crop,
    }
    image = photo(*shape)
    ours = fit_image(tf.constant(image), Preprocessing(**rule)).numpy().astype(int)
    device = fit_on_device(Image.fromarray(image), **rule).astype(int)
    # Two libraries round differently; "nearest" may also pick the neighbouring pixel.
    assert np.abs(ours - device).max() <= (12 if interpolation == "nearest" else 2)
    assert np.abs(ours - device).mean() < (5 if interpolation == "nearest" else 0.5)


def test_crop_keeps_proportions_and_the_middle():
    image = np.zeros((10, 30, 1), "uint8")
    image[:, 10:20] = 255
    rule = Preprocessing(image_size=10, channels=1, resize="crop")
    assert (fit_image(tf.constant(image), rule).numpy() == 255).all()


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4 channels do not fit.*3 channels"):
        fit_image(tf.zeros((8, 8, 4), tf.uint8), Preprocessing(image_size=8))


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
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, words):
    with pytest.raises(ValueError) as error:
        load_data(name)
    assert all(word in str(error.value) for word in words), str(error.value)
