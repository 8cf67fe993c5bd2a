"""Augmentation is a function of seed and step, in whatever order steps are made."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.training.augmentation.random_changes import Augmentation
from keras_vit.training.recipes import TRAINING_RECIPES, TrainingRecipe

NOTHING = TrainingRecipe(translation=0.0)
SOME = [
    {"translation": 0.25},
    {"flip": True},
    {"random_erasing": 1.0},
    {"mixup": 0.8},
    {"cutmix": 1.0},
    {"mixup": 0.8, "cutmix": 1.0, "flip": True, "rand_augment": 0.5},
]


def batches(recipe, steps, seed=0, worker=0, channels=3, calls=4):
    """Augmented batches of the same images at each of the steps."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 12, 16, channels)).astype("uint8")
    labels = np.array([0, 1, 2, 3, 0, 1], "int32")
    augment = Augmentation(recipe, 4, seed, worker)
    data = tf.data.Dataset.from_tensor_slices(np.array(steps, "int64"))
    data = data.map(
        lambda step: augment(step, images, labels), num_parallel_calls=calls
    )
    return images, labels, list(data.as_numpy_iterator())


@pytest.mark.parametrize("fields", SOME, ids=lambda fields: "+".join(fields))
def test_a_step_gives_the_same_batch_wherever_it_starts_and_others_differ(fields):
    recipe = dataclasses.replace(NOTHING, **fields)
    original, _, whole = batches(recipe, range(8))
    _, _, later = batches(recipe, range(5, 8), calls=1)
    for (images, targets), (again, targets_again) in zip(whole[5:], later, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(targets, targets_again)
    assert len({images.tobytes() for images, _ in whole}) > 4
    assert any((images != original).any() for images, _ in whole)
    for images, targets in whole:
        assert images.shape == original.shape and images.dtype == np.float32
        assert -1e-3 <= images.min() and images.max() <= 255.001
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)


def test_seeds_and_workers_draw_differently():
    recipe = dataclasses.replace(NOTHING, random_erasing=1.0)
    seen = [
        batches(recipe, [3], seed, worker)[2][0][0].tobytes()
        for seed, worker in ((0, 0), (1, 0), (0, 1))
    ]
    assert len(set(seen)) == 3


def test_without_changes_pixels_and_labels_stay():
    images, labels, [(same, targets)] = batches(NOTHING, [0])
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(targets, np.eye(4)[labels])


def test_with_both_mixers_a_batch_has_the_one_or_the_other():
    both = dataclasses.replace(NOTHING, mixup=0.8, cutmix=1.0)
    original, _, mixed = batches(both, range(24))
    pixels = {tuple(pixel) for pixel in original.reshape(-1, 3).tolist()}

    def cut(images):
        """CutMix leaves every pixel one of the originals; MixUp blends them."""
        rows = np.rint(images).astype(int).reshape(-1, 3).tolist()
        return all(tuple(pixel) in pixels for pixel in rows)

    share = np.mean([cut(images) for images, _ in mixed])
    assert 0.2 < share < 0.8


def test_images_are_mirrored_left_to_right_and_half_of_them():
    original, _, steps = batches(dataclasses.replace(NOTHING, flip=True), range(20))
    images = np.concatenate([images for images, _ in steps])
    originals = np.tile(original, (20, 1, 1, 1))
    as_they_were = (images == originals).all(axis=(1, 2, 3))
    mirrored = (images == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (as_they_were ^ mirrored).all()
    assert 0.3 < mirrored.mean() < 0.7


def test_rectangles_are_erased_from_that_part_of_the_images():
    recipe = dataclasses.replace(NOTHING, random_erasing=0.25)
    original, _, steps = batches(recipe, range(50))
    changed = [(images != original).any(axis=(1, 2, 3)) for images, _ in steps]
    assert 0.15 < np.mean(changed) < 0.35


def test_cutmix_takes_any_part_of_an_image_equally_often():
    """Alpha 1. Of Keras' own reading of a number, 37 % of the images keep all but a
    twentieth of themselves, or get it."""
    original, _, steps = batches(dataclasses.replace(NOTHING, cutmix=1.0), range(100))
    cut = [(images != original).any(axis=3).mean(axis=(1, 2)) for images, _ in steps]
    taken = np.concatenate(cut)
    taken = taken[taken > 0]  # none where an image is mixed with itself
    assert (np.minimum(taken, 1 - taken) < 0.05).mean() < 0.2


@pytest.mark.parametrize("name", TRAINING_RECIPES)
def test_every_recipe_takes_grey_images(name):
    _, _, [(images, targets)] = batches(TRAINING_RECIPES[name], [7], channels=1)
    assert images.shape == (6, 12, 16, 1)
    assert np.isfinite(images).all() and np.isfinite(targets).all()
