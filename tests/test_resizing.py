"""A trained model for another image size: positions are resized, all else stays."""

import numpy as np
import pytest

import keras_vit
from keras_vit import (
    config_of,
    with_fewer_tokens,
    with_image_size,
    with_patch_size,
)
from keras_vit.config import parse_reductions
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


@pytest.mark.parametrize(
    "fields", [{}, {"stem": (4,), "class_token": False, "pool": "mean"}]
)
def test_patches_of_another_side_see_the_same_in_larger_images(
    fields, tiny, randomize, rng
):
    """Each pixel repeated, and the patches as much larger: the same tokens, nearly."""
    model = randomize(
        keras_vit.build_vit(tiny(image_size=(16, 16), positions="sincos_2d", **fields))
    )
    finer = with_patch_size(model, 2)
    config = config_of(finer)
    assert (config.patch_size, config.grid) == (2, (8, 8))
    other = with_patch_size(with_image_size(model, (32, 32)), 8)
    assert config_of(other).grid == config_of(model).grid
    if fields:  # a convolution before the patches sees more of a larger image
        return
    small = rng.uniform(0, 255, (4, 2, 2, 3)).repeat(8, axis=1).repeat(8, axis=2)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(other(large), model(small), rtol=1e-3, atol=1e-3)


def test_fewer_tokens_take_the_same_weights_and_short_words(tiny, randomize):
    model = randomize(keras_vit.build_vit(tiny(depth=4, image_size=(16, 16))))
    steps = {
        0.5: ((1, "prune", 0.5), (2, "prune", 0.5)),
        "pool": ((1, "pool", 2),),
        ((0, "pool", 4),): ((0, "pool", 4),),
    }
    for given, expected in steps.items():
        reduced = with_fewer_tokens(model, given)
        assert config_of(reduced).reduce_tokens == expected
        for a, b in zip(reduced.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        again = with_fewer_tokens(reduced, ())
        assert config_of(again) == config_of(model)
    assert with_fewer_tokens(model, ()) is model


def test_prunings_stand_at_quarters_of_the_depth(tiny):
    at = {2: (0,), 3: (0, 1), 4: (1, 2), 6: (1, 3, 4), 12: (3, 6, 9)}
    for depth, blocks in at.items():
        found = tiny(depth=depth, reduce_tokens=0.7).reduce_tokens
        assert found == tuple((block, "prune", 0.7) for block in blocks)
    pooled = tiny(depth=12, image_size=(16, 16), reduce_tokens="pool")
    assert pooled.reduce_tokens == ((5, "pool", 2),)


def test_reductions_are_read_from_words():
    assert parse_reductions("0.7") == 0.7 and parse_reductions("pool") == "pool"
    assert parse_reductions("1:0.5,3:pool") == ((1, "prune", 0.5), (3, "pool", 2))
    for text in ("", "half", "1:", "0.5,pool", "a:0.5", "1:0.5,"):
        with pytest.raises(ValueError, match="Received: "):
            parse_reductions(text)
