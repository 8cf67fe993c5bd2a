"""Maps are the attention of the model itself; rollout is the paper's product."""

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.explain import (
    attention_maps,
    draw_attention,
    draw_position_similarity,
    patch_maps,
    position_similarity,
    rollout,
)

KINDS = {
    "plain": {},
    "registers": {"num_registers": 2, "qk_norm": True},
    "no class token": {"class_token": False, "pool": "mean", "stem": (4,)},
    "one block": {"depth": 1},
    "mixed precision": {},
}


@pytest.fixture(params=KINDS)
def model(request, tiny, randomize):
    import keras

    if request.param == "mixed precision":
        keras.config.set_dtype_policy("mixed_bfloat16")
    return randomize(keras_vit.build_vit(tiny(**KINDS[request.param])))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (2, 8, 12, 3)).astype("uint8")


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def test_a_class_token_that_no_classifier_reads_is_not_shown(tiny, images):
    """It goes nowhere behind the last block; the mean of the patches goes to the head."""
    maps = np.zeros((1, 7, 7))
    maps[:, 0, 1], maps[:, 1:, 2] = 1.0, 1.0  # the token looks at patch 0, patches at 1
    for pool, patch in (("token", 0), ("token_and_mean", 0), ("mean", 1), ("map", 1)):
        shown = patch_maps(maps, tiny(pool=pool))
        assert shown.argmax() == patch and shown.max() == 1.0


def test_maps_sum_to_1_for_each_query(model, images):
    config = keras_vit.config_of(model)
    tokens = config.num_prefix_tokens + config.num_patches
    maps = attention_maps(model, images)
    assert maps.shape == (2, config.depth, config.num_heads, tokens, tokens)
    half = model.get_layer("patches").dtype_policy.name != "float32"
    # bfloat16 has 8 bits of each weight.
    assert np.abs(maps.sum(axis=-1) - 1).max() <= (2e-2 if half else 1e-5)


def test_a_map_is_the_softmax_of_queries_and_keys(tiny, randomize, images):
    import keras

    model = randomize(keras_vit.build_vit(tiny()))
    maps = attention_maps(model, images)
    inner = model.get_layer("block_01_attention_norm").output
    x = np.asarray(keras.Model(model.input, inner)(images), "float64")
    layer = model.get_layer("block_01_attention")
    (wq, bq), (wk, bk) = (part.get_weights() for part in (layer.query, layer.key))
    q, k = x @ wq + bq, x @ wk + bk
    q, k = (part.reshape(2, -1, 2, 4).transpose(0, 2, 1, 3) for part in (q, k))
    expected = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(4))
    np.testing.assert_allclose(maps[:, 1], expected, atol=1e-5)


def test_rollout_is_the_product_of_half_identities(rng):
    maps = softmax(rng.normal(size=(2, 3, 4, 5, 5)))
    for image, got in zip(maps, rollout(maps), strict=True):
        first, second, third = (0.5 * np.eye(5) + 0.5 * it.mean(0) for it in image)
        np.testing.assert_allclose(got, third @ second @ first, atol=1e-12)
        np.testing.assert_allclose(got.sum(axis=-1), 1)


def test_patch_maps_leave_prefix_tokens_out(tiny, rng):
    maps = rng.uniform(size=(3, 9, 9))
    config = tiny(num_registers=2)
    got = patch_maps(maps, config)
    np.testing.assert_array_equal(got, maps[:, 0, 3:].reshape(3, 2, 3))
    alone = tiny(class_token=False, num_registers=3, pool="mean")
    expected = maps[:, 3:, 3:].mean(axis=1).reshape(3, 2, 3)
    np.testing.assert_allclose(patch_maps(maps, alone), expected)


@pytest.mark.parametrize("positions", ["learned", "sincos_2d", "sinusoidal_1d"])
def test_similarity_is_the_cosine_of_patches_alone(positions, tiny, randomize):
    model = randomize(keras_vit.build_vit(tiny(positions=positions, num_registers=1)))
    found = position_similarity(model)
    assert found.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(np.einsum("ijij->ij", found), 1, atol=1e-6)
    if positions == "learned":
        table = np.asarray(model.get_layer("positions").positions)[0]
        a, b = table[2], table[7]  # after two prefix tokens
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(found[0, 0, 1, 2], cosine, atol=1e-6)


def test_both_pictures_are_drawn(model, images, tmp_path):
    config = keras_vit.config_of(model)
    maps = attention_maps(model, images[:1])
    draw_attention(images[0], maps[0], config, tmp_path / "attention.png")
    draw_position_similarity(position_similarity(model), tmp_path / "positions.png")
    for name in ("attention.png", "positions.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10


def test_other_models_are_refused():
    import keras

    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="made by build_vit"):
        attention_maps(other, np.zeros((1, 8)))
