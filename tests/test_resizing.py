"""A trained model for another image size: positions are resized, all else stays."""

import numpy as np
import pytest

import keras_vit
from keras_vit import config_of, with_image_size
from keras_vit.resampling import resize_positions


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_registers": 2},
        {"positions_cover_prefix": False},
        {"stem": (4,), "class_token": False, "pool": "mean"},
        {"positions": "sincos_2d"},
    ],
)
def test_positions_are_resized_and_all_else_stays(fields, tiny, randomize):
    model = randomize(keras_vit.build_vit(tiny(**fields)))
    config = config_of(model)
    other = with_image_size(model, (16, 20))
    assert config_of(other).grid == (4, 5) and config_of(other).patch_size == 4
    for layer in other.layers:
        before = model.get_layer(layer.name).get_weights()
        after = layer.get_weights()
        if layer.name == "positions" and after:
            prefix = config.num_prefix_positions
            np.testing.assert_array_equal(after[0][:, :prefix], before[0][:, :prefix])
            patches = resize_positions(
                before[0][:, prefix:], (2, 3), (4, 5), "bicubic_antialias"
            )
            np.testing.assert_array_equal(after[0][:, prefix:], patches)
        else:
            for a, b in zip(after, before, strict=True):
                np.testing.assert_array_equal(a, b)


def test_the_same_size_is_the_same_model_and_patches_must_fit(tiny):
    model = keras_vit.build_vit(tiny())
    assert with_image_size(model, (8, 12)) is model
    with pytest.raises(ValueError, match="patch_size must divide image_size"):
        with_image_size(model, (9, 12))
