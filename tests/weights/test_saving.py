"""A model as timm's file and back: every bit of it."""

import dataclasses

import numpy as np
import pytest

import keras_vit
from keras_vit.weights import read_checkpoint, save_timm

KINDS = {
    "plain": {},
    "mean": {"pool": "mean", "norm_after_pool": True},
    "mean, norm before": {"pool": "mean", "activation": "gelu_tanh"},
    "distilled": {"distillation_token": True, "class_names": ("a", "b", "c")},
    "registers": {"num_registers": 2, "positions_cover_prefix": False},
    "all": {"qk_norm": True, "layer_scale": 0.3, "activation": "swiglu", "channels": 1},
    "pixels": {"mean": 0.2, "std": 0.3, "resize": "crop", "crop": 0.9},
    "probabilities": {"head_output": "softmax", "norm_epsilon": 1e-3},
}


def random_model(tiny, randomize, fields):
    return randomize(keras_vit.build_vit(tiny(**fields)))


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_a_model_comes_back_as_it_was(fields, tiny, randomize, tmp_path):
    model = random_model(tiny, randomize, fields)
    save_timm(model, tmp_path / "timm")
    found = read_checkpoint(tmp_path / "timm")
    config, back = map(keras_vit.config_of, (model, found.model))
    # The first value of LayerScale is gone once there are weights.
    assert dataclasses.replace(back, layer_scale=config.layer_scale) == config
    for before, after in zip(model.weights, found.model.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    assert found.preprocessing == "the file's own metadata"
    assert not found.remarks


@pytest.mark.parametrize(
    "fields",
    [
        {"num_registers": 2, "positions_cover_prefix": True},
        {"positions": "sincos_2d"},
        {"positions": "sinusoidal_1d"},
    ],
)
def test_other_positions_come_back_as_the_same_function(
    fields, tiny, randomize, rng, tmp_path
):
    model = random_model(tiny, randomize, fields)
    save_timm(model, tmp_path)
    back = keras_vit.load_checkpoint(tmp_path)
    images = rng.integers(0, 256, (3, 8, 12, 3))
    np.testing.assert_allclose(back(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"stem": (4,)},
        {"reduce_tokens": ((0, "prune", 0.5),), "depth": 3},
        {"head_hidden": (5,)},
        {"pool": "sequence", "class_token": False},
        {"pool": "token_and_mean"},
        {"num_registers": 1, "distillation_token": True},
        {"activation": "swiglu", "distillation_token": True},
        {"norm_after_pool": True, "distillation_token": True},
        {"positions_cover_prefix": False, "distillation_token": True},
    ],
)
def test_what_timm_has_not_is_refused(fields, tiny, tmp_path):
    model = keras_vit.build_vit(tiny(**fields))
    with pytest.raises(ValueError, match=next(iter(fields))):
        save_timm(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="already holds"):
        save_timm(keras_vit.build_vit(tiny()), tmp_path)
