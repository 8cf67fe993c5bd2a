"""Shared by all tests: quiet TensorFlow, seeds, tiny configurations."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import pytest

from keras_vit import ViTConfig


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tiny():
    """A function from changed fields to a configuration of a few thousand weights."""

    def make(**fields):
        sizes = {"width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 12}
        common = {"image_size": (8, 12), "patch_size": 4, "num_classes": 3}
        return ViTConfig(**{**sizes, **common, **fields})

    return make


@pytest.fixture
def randomize(rng):
    """A function that gives every weight random values: zeros hide mistakes."""

    def fill(layer):
        for weight in layer.weights:
            if np.issubdtype(np.dtype(weight.numpy().dtype), np.floating):
                weight.assign(rng.normal(0.0, 0.5, weight.shape))
        return layer

    return fill
