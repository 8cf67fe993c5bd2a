"""Which images are taken, and what each is used for."""

import numpy as np
import pytest
import tensorflow as tf
from keras_vit_export import export
from keras_vit_export.exporter import Exporter, export_all
from keras_vit_export.quantization.calibration import LEAST_IMAGES
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.measure import table
from keras_vit_export.splits import find_splits

from keras_vit.data import from_arrays

CALIBRATED = [
    name for name, recipe in QUANTIZATION_RECIPES.items() if recipe.images_for
]


@pytest.mark.parametrize("recipe", CALIBRATED)
def test_a_recipe_that_needs_images_says_so(recipe, model):
    with pytest.raises(ValueError, match=f"'{recipe}' needs images"):
        export(model, recipe)


def test_too_few_images_are_refused(model, pixels):
    with pytest.raises(
        ValueError, match=f"at least {LEAST_IMAGES} images.*Received: 7"
    ):
        export(model, "static_int8", pixels[:7])


@pytest.mark.parametrize("shape", [(16, 8, 8, 3), (16, 8, 12, 1), (16, 12, 8, 3)])
def test_images_of_another_shape_are_refused(shape, model):
    with pytest.raises(ValueError, match=r"model's shape \(8, 12, 3\)"):
        export(model, "static_int8", np.zeros(shape, "uint8"))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class_are_refused(label, model, pixels):
    labels = np.full(len(pixels), label, "int32")
    images = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8)
    with pytest.raises(ValueError, match=r"Labels must be in 0\.\.2"):
        export(model, "dynamic_int8", images)


def test_labels_in_a_column_count_like_labels_in_a_row(model, pixels):
    labels = np.arange(16, dtype="int64") % 3

    def top1(labels):
        images = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8)
        return export(model, "float32", images)[1].top1

    assert top1(labels) == top1(labels[:, None])
    with pytest.raises(ValueError, match="integers, one an image"):
        top1(np.eye(3)[labels])


@pytest.mark.parametrize("wrong", [np.nan, -1.0, 256.0])
def test_calibration_images_that_are_no_pixels_are_refused(wrong, model, pixels):
    images = pixels.astype("float32")
    images[3, 2, 1, 0] = wrong
    with pytest.raises(ValueError, match=r"pixels in 0\.\.255"):
        export(model, "static_int8", images)


def test_a_data_set_without_end_is_refused(model, images):
    with pytest.raises(ValueError, match="must end"):
        export(model, "float32", images.repeat())


def test_an_array_calibrates_and_measures_no_accuracy(model, pixels):
    _, report = export(model, "static_int8", pixels)
    assert report.top1 is None
    assert report.splits == {
        "calibration": {"split": "given", "images": 16},
        "choice": {"split": "given", "images": 16},
    }


def test_ranges_come_from_training_choices_from_validation_figures_from_test(model):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 8, 12, 3)).astype("uint8")
    rows = {"train": range(30), "validation": range(30, 50), "test": range(50, 60)}
    rows = {split: np.array(chosen) for split, chosen in rows.items()}
    labels = rng.integers(0, 3, 60)
    data = from_arrays("noise", ["a", "b", "c"], pixels, labels, rows).load()
    exporter = Exporter(model, data)
    shown = {image.tobytes() for image in exporter.splits.calibration}
    assert shown == {image.tobytes() for image in pixels[:30]}
    np.testing.assert_array_equal(exporter.splits.compared, pixels[30:50])
    _, reports = exporter.check({"static_int8": exporter.convert("static_int8")})
    assert reports["static_int8"].splits == {
        "calibration": {"split": "train", "images": 30},
        "choice": {"split": "validation", "images": 20},
        "report": {"split": "test", "images": 10},
    }
    assert reports["static_int8"].images == 10


@pytest.mark.parametrize("count", [20, 64, 127, 129, 1000])
@pytest.mark.parametrize("kind", ["array", "data set", "folder"])
def test_images_that_come_class_by_class_are_taken_from_all(kind, count):
    """Image `i` holds the number `i`, as digits to the base 256."""
    numbers = np.arange(count)
    digits = np.stack([numbers // 256, numbers % 256, numbers * 0], axis=1)
    pixels = digits.astype("uint8").reshape(-1, 1, 1, 3)
    given = pixels
    if kind == "data set":
        pairs = tf.data.Dataset.from_tensor_slices((pixels, numbers.astype("int32")))
        given = pairs.batch(7)
    if kind == "folder":
        rows = dict.fromkeys(("train", "validation", "test"), numbers)
        given = from_arrays("sorted", ["a"], pixels, numbers * 0, rows).load()
    splits = find_splits(given)
    for images, most in ((splits.calibration, 64), (splits.compared, 32)):
        taken = images.reshape(-1, 3).astype(int) @ [256, 1, 0]
        gaps = np.diff([*taken, count])
        assert len(taken) == min(count, most) and taken[0] == 0
        assert gaps.min() > 0 and gaps.max() < 2 * count / len(taken) + count / 10
    if kind == "data set":
        assert splits.counts["report"]["images"] == count


def test_without_images_nothing_is_called_accuracy(model):
    _, reports = export_all(model, ["float32"])
    assert reports["float32"].top1 is None
    assert reports["float32"].agreement is None
    assert reports["float32"].max_difference < 1e-5
    assert reports["float32"].splits == {}
    assert "not measured" in table(reports)


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (["a.png", "b.png"], r"list of shape \(2,\)"),
        (np.zeros((0, 8, 12, 3), "uint8"), r"\(0, 8, 12, 3\)"),
        (np.zeros((8, 12, 3), "uint8"), r"\(8, 12, 3\)"),
        (([[1]], [[1, 2], [3]]), "tuple"),
    ],
)
def test_what_is_no_images_is_refused(wrong, received, model):
    with pytest.raises(ValueError, match=f"ImageData.*Received: .*{received}"):
        export(model, "static_int8", wrong)


def test_data_sets_of_other_than_batches_with_labels_are_refused(model, pixels):
    alone = tf.data.Dataset.from_tensor_slices(pixels)
    pairs = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(16, "int32")))
    named = tf.data.Dataset.from_tensor_slices({"image": pixels})
    for wrong in (alone, alone.batch(8), pairs, named):
        with pytest.raises(ValueError, match="batches of images .* and labels"):
            export(model, "float32", wrong)
    with pytest.raises(ValueError, match="empty"):
        export(model, "float32", pairs.batch(8).take(0))


def test_calibration_images_are_the_same_in_every_epoch():
    rng = np.random.default_rng(0)
    pixels = np.arange(300 * 12, dtype="uint16").reshape(300, 2, 2, 3) % 251
    rows = {"train": range(280), "validation": range(280, 290), "test": range(290, 300)}
    rows = {split: np.array(chosen) for split, chosen in rows.items()}
    labels = rng.integers(0, 2, 300)
    source = from_arrays("noise", ["a", "b"], pixels.astype("uint8"), labels, rows)
    data = source.load(seed=0)
    first = find_splits(data)
    for _ in data.train:
        pass
    again, other = find_splits(data), find_splits(source.load(seed=1))
    np.testing.assert_array_equal(first.calibration, pixels[np.arange(64) * 280 // 64])
    np.testing.assert_array_equal(first.calibration, again.calibration)
    np.testing.assert_array_equal(first.calibration, other.calibration)
    assert first.counts["calibration"] == {"split": "train", "images": 64}


def test_a_recipe_with_nothing_to_choose_names_no_images_of_choice(model, images):
    _, reports = export_all(model, ["float16", "static_int8"], images)
    assert "choice" not in reports["float16"].splits
    assert reports["static_int8"].splits["choice"]["images"] == 16


def test_images_that_were_scaled_to_1_already_are_refused(model, pixels):
    with pytest.raises(ValueError, match="scale them by themselves"):
        export(model, "static_int8", pixels / 255)
    export(model, "static_int8", np.zeros((8, 8, 12, 3)))  # black is black
