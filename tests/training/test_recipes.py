"""Every training recipe makes two steps on the published sizes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit.data import from_arrays
from keras_vit.training.recipes import TRAINING_RECIPES
from keras_vit.training.rehearsal import available_memory
from tests import processes

SMALL = ("nano", "compact", "compact3", "micro", "Ti", "S", "B")
SIZES = (*SMALL, "L", "H", "g")
# Weights and two moments, before and after the step, its gradients, and the copy that
# is kept of the best epoch: eight times the weights.
NEEDED_GB = {"L": 10, "H": 20, "g": 36}
PRECISIONS = ("float32", "mixed_bfloat16")
# Every recipe in both precisions, and every size; all by all take an hour.
SAMPLED = [
    ("small", "float32", "Ti"),
    ("small", "mixed_bfloat16", "nano"),
    ("scratch_small", "float32", "compact"),
    ("scratch_small", "mixed_bfloat16", "compact"),
    ("augreg", "float32", "nano"),
    ("augreg", "mixed_bfloat16", "compact"),
    ("deit", "float32", "micro"),
    ("deit", "mixed_bfloat16", "compact"),
    ("finetune", "float32", "compact3"),
    ("finetune", "mixed_bfloat16", "nano"),
    ("fewer_tokens", "float32", "nano"),
    ("fewer_tokens", "mixed_bfloat16", "micro"),
    ("linear_probe", "float32", "S"),
    ("linear_probe", "mixed_bfloat16", "B"),
]


def two_steps(recipe, size, precision):
    """Trains on images of 2 x 2 patches, two a batch; gives back what came of it."""
    keras.config.set_dtype_policy(precision)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    parts = np.split(np.arange(8), [4, 6])
    rows = dict(zip(("train", "validation", "test"), parts, strict=True))
    source = from_arrays("noise", ["a", "b"], images, np.arange(8) % 2, rows)
    config = keras_vit.ViTConfig.from_variant(
        f"{size}/16", image_size=32, num_classes=2, drop_path=0.1
    )
    model = keras_vit.build_vit(config)
    before = [np.array(v) for v in model.get_layer("head").weights]
    changed = {
        **vars(TRAINING_RECIPES[recipe]),
        "epochs": 1,
        "warmup": 0.0,
        "ema_momentum": 0.0,
    }
    run = keras_vit.train(
        model,
        source.load(config, batch_size=2),
        keras_vit.TrainingRecipe(**changed),
        verbose=0,
    )
    after = [np.array(v) for v in model.get_layer("head").weights]
    return run, before, after


def check(recipe, size, precision):
    run, before, after = two_steps(recipe, size, precision)
    assert np.isfinite(run.history["loss"]).all()
    assert np.isfinite(run.evaluation.probabilities).all()
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


def check_uncompiled(*case):
    """For a process of its own, which has no fixtures."""
    tf.config.run_functions_eagerly(True)
    check(*case)


def apart(function, recipe, size, precision):
    """In a process of its own: TensorFlow keeps what it compiled as long as one lives.

    That is half a gigabyte for a Ti.
    """
    needed, free = NEEDED_GB.get(size, 0), available_memory()
    if recipe == "linear_probe":
        needed /= 2.5  # gradients and moments are the head's alone
    if free is None or free < needed * 1e9:
        pytest.skip(f"{size} needs {needed:.0f} GB of free memory")
    process = processes.start(function, recipe, size, precision)
    assert processes.finished(process, timeout=600) == 0


def test_the_sample_has_every_recipe_in_both_precisions_and_every_size():
    pairs = {(recipe, precision) for recipe, precision, _ in SAMPLED}
    assert pairs == set(itertools.product(TRAINING_RECIPES, PRECISIONS))
    assert {size for _, _, size in SAMPLED} == set(SMALL)


@pytest.mark.parametrize(("recipe", "precision", "size"), SAMPLED)
def test_every_recipe_trains(recipe, precision, size, uncompiled):
    check(recipe, size, precision)


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", TRAINING_RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_every_recipe_trains_every_size(recipe, size, precision):
    apart(check_uncompiled, recipe, size, precision)


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", TRAINING_RECIPES)
def test_every_recipe_compiles(recipe, precision):
    apart(check, recipe, "nano", precision)


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_compiles(size, precision):
    apart(check, "deit", size, precision)
