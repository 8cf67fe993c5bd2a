"""Maps are the attention of the model itself; rollout is the paper's product."""

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.attention import score_gaps
from keras_vit.explain import (
    attention_maps,
    draw_attention,
    draw_position_similarity,
    patch_maps,
    position_similarity,
    rollout,
    token_groups,
)

KINDS = {
    "plain": {},
    "registers": {"num_registers": 2, "qk_norm": True},
    "no class token": {"class_token": False, "pool": "mean", "stem": (4,)},
    "one block": {"depth": 1},
    "mixed precision": {},
    "fewer tokens": {
        "image_size": (16, 24),
        "depth": 4,
        "num_registers": 1,
        "reduce_tokens": ((0, "pool", 2), (1, "prune", 0.5), (2, "prune", 0.5)),
    },
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


@pytest.fixture
def fitting(model, images):
    """Images of the model's size."""
    _, height, width, _ = model.input_shape
    return images.repeat(height // 8, axis=1).repeat(width // 12, axis=2)


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


def test_maps_sum_to_1_for_each_query(model, fitting):
    config = keras_vit.config_of(model)
    tokens = config.num_prefix_tokens + config.num_patches
    maps = attention_maps(model, fitting)
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


@pytest.fixture
def reduced(tiny, randomize):
    """A model of 24 patches: 6 after pooling, then 3 and 1 beside a fused one."""
    return randomize(keras_vit.build_vit(tiny(**KINDS["fewer tokens"])))


def test_tokens_are_followed_through_reductions(reduced, rng):
    """Rebuilt token by token from the residual stream itself."""
    import keras

    images = rng.integers(0, 256, (2, 16, 24, 3)).astype("uint8")
    groups = token_groups(reduced, images)
    assert groups.shape == (2, 4, 2 + 24)
    np.testing.assert_array_equal(groups[:, 0], [np.arange(26)] * 2)
    rows, columns = np.indices((4, 6)) // 2
    np.testing.assert_array_equal(groups[0, 1, 2:], 2 + (3 * rows + columns).ravel())
    for block, name in ((0, "pool"), (1, "prune"), (2, "prune")):
        nodes = [f"block_{block:02d}_attention_add", f"block_{block:02d}_{name}"]
        outputs = [reduced.get_layer(node).output for node in nodes]
        before, after = keras.Model(reduced.input, outputs)(images)
        for image in range(2):
            members = groups[image, block + 1]
            for token in range(after.shape[1]):
                mean = before[image].numpy()[groups[image, block]][members == token]
                expected = mean.mean(axis=0)  # of all patches that it stands for
                np.testing.assert_allclose(after[image, token], expected, atol=1e-4)


def test_rollout_goes_through_reductions(reduced, rng):
    images = rng.integers(0, 256, (1, 16, 24, 3)).astype("uint8")
    maps, groups = attention_maps(reduced, images), token_groups(reduced, images)
    product = np.eye(26)
    for block in range(4):
        same = groups[0, block][:, None] == groups[0, block][None]
        mixed = same / same.sum(axis=1, keepdims=True) + maps[0, block].mean(axis=0)
        product = mixed / 2 @ product
    np.testing.assert_allclose(rollout(maps, groups)[0], product, atol=1e-6)
    np.testing.assert_allclose(product.sum(axis=1), 1, atol=1e-5)


def test_a_tie_is_told_from_a_choice(tiny, randomize, rng):
    """Patches that look alike and have no place of their own have one score."""
    config = tiny(positions="sincos_2d", reduce_tokens=((0, "prune", 0.5),))
    model = randomize(keras_vit.build_vit(config))
    model.get_layer("positions").positions = np.zeros((1, 6, 8))
    flat = np.full((1, 8, 12, 3), 99, "uint8")
    noise = rng.integers(0, 256, (1, 8, 12, 3)).astype("uint8")
    tied, apart = score_gaps(model, np.concatenate([flat, noise]))
    assert tied < 1e-5
    assert apart > 1e-3
    assert np.isinf(score_gaps(randomize(keras_vit.build_vit(tiny())), noise)).all()


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


def test_both_pictures_are_drawn(model, fitting, tmp_path):
    config = keras_vit.config_of(model)
    maps = attention_maps(model, fitting[:1])
    (groups,) = token_groups(model, fitting[:1])
    path = tmp_path / "attention.png"
    draw_attention(fitting[0], maps[0], config, path, groups)
    draw_position_similarity(position_similarity(model), tmp_path / "positions.png")
    for name in ("attention.png", "positions.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10


def test_other_models_are_refused():
    import keras

    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="made by build_vit"):
        attention_maps(other, np.zeros((1, 8)))
