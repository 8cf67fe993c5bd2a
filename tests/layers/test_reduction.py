"""Fewer tokens: what is kept, what is fused, and what that leaves as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit import layers
from keras_vit.attention import score_gaps, token_groups

PREFIX = 2


@pytest.fixture
def weights(rng):
    """Attention weights of 2 heads over 2 prefix tokens and 10 patches."""
    scores = np.exp(rng.normal(size=(3, 2, 12, 12)))
    return (scores / scores.sum(axis=-1, keepdims=True)).astype("float32")


@pytest.fixture
def tokens(rng):
    return rng.normal(size=(3, 12, 8)).astype("float32")


def prune(tokens, scores, k, fused=0):
    """One image's `(n, d)` by the definition, in float64."""
    last = len(tokens) - bool(fused)
    order = sorted(range(PREFIX, last), key=lambda i: -scores[i])
    others = tokens[order[k:]].sum(axis=0) + (fused * tokens[-1] if fused else 0)
    mean = others / (last - PREFIX - k + fused)
    return np.concatenate([tokens[:PREFIX], tokens[order[:k]], mean[None]])


@pytest.mark.parametrize("fused", [0, 7])
@pytest.mark.parametrize("by_class_token", [True, False])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_pruning_is_what_the_definition_says(
    keep, by_class_token, fused, tokens, weights
):
    scores = weights[:, :, 0] if by_class_token else weights.mean(axis=2)
    layer = layers.PruneTokens(keep, PREFIX, by_class_token, fused)
    got = np.asarray(layer(tokens, weights))
    k = round(keep * (10 - bool(fused)))
    assert got.shape == (3, PREFIX + k + 1, 8)
    for image, score, row in zip(tokens, scores.mean(axis=1), got, strict=True):
        expected = prune(image.astype("float64"), score, k, fused)
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_the_mean_of_all_patches_stays(tokens, weights, tiny):
    """Over two prunings, with the share that the configuration gives the fused token."""
    steps = ((0, "prune", 0.6), (1, "prune", 0.5))
    config = tiny(depth=3, image_size=(8, 20), num_registers=1, reduce_tokens=steps)
    x = tokens
    for step in config.reductions:
        layer = layers.PruneTokens(step.amount, PREFIX, fused=step.fused)
        x = layer(x, weights[:, :, : x.shape[1], : x.shape[1]])
    pooled = layers.MeanPool(PREFIX, config.fused_share)(x)
    expected = tokens[:, PREFIX:].mean(axis=1)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooling_averages_squares_of_the_grid(rng):
    grid = rng.normal(size=(2, 4, 6, 8)).astype("float32")
    prefix = rng.normal(size=(2, 3, 8)).astype("float32")
    tokens = np.concatenate([prefix, grid.reshape(2, 24, 8)], axis=1)
    got = np.asarray(layers.PoolTokens((4, 6), 2, num_prefix_tokens=3)(tokens))
    np.testing.assert_array_equal(got[:, :3], prefix)
    squares = grid.reshape(2, 2, 2, 3, 2, 8).mean(axis=(2, 4)).reshape(2, 6, 8)
    np.testing.assert_allclose(got[:, 3:], squares, atol=1e-6)


def test_of_equal_scores_the_first_patch_is_kept(tokens):
    same = np.full((3, 2, 12, 12), 1 / 12, "float32")
    got = layers.PruneTokens(0.5, PREFIX)(tokens, same)
    np.testing.assert_array_equal(got[:, :7], tokens[:, :7])


def test_keeping_all_changes_nothing(tokens, weights):
    got = layers.PruneTokens(1.0, PREFIX)(tokens, weights)
    np.testing.assert_array_equal(got, tokens)


def test_what_is_kept_trains_and_what_is_fused_trains_less(tokens, weights):
    layer = layers.PruneTokens(0.5, PREFIX)
    x = tf.constant(tokens)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, weights))
    gradient = tape.gradient(total, x).numpy()
    order = np.asarray(layer.order(weights)) + PREFIX
    for row, kept in zip(gradient, order, strict=True):
        np.testing.assert_allclose(row[:PREFIX], 1)
        np.testing.assert_allclose(row[kept[:5]], 1)
        np.testing.assert_allclose(row[kept[5:]], 1 / 5, atol=1e-6)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.1, float("nan")])
def test_a_part_outside_of_0_to_1_is_refused(keep):
    with pytest.raises(ValueError, match=r"keep must be in \(0, 1\]"):
        layers.PruneTokens(keep)


def test_a_grid_that_the_side_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"side=2, grid=\(4, 7\)"):
        layers.PoolTokens((4, 7))


@pytest.fixture
def xla(request):
    """Whether steps are compiled; those that are not run operation by operation."""
    tf.config.run_functions_eagerly(not request.param)
    yield request.param
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    ("fields", "xla"),
    [
        ({}, False),
        ({"num_registers": 2, "patch_dropout": 0.3}, True),
        ({"class_token": False, "pool": "mean", "norm_after_pool": True}, False),
        ({"distillation_token": True}, False),
        ({"pool": "map"}, True),
        ({"pool": "sequence", "class_token": False}, False),
        ({"pool": "token_and_mean"}, False),
    ],
    indirect=["xla"],
)
def test_models_of_every_kind_train_with_fewer_tokens(
    fields, xla, tiny, rng, randomize
):
    """Also compiled by XLA, and with the first tokens alone in the last block."""
    steps = ((0, "pool", 2), (1, "prune", 0.5))
    if "patch_dropout" in fields:
        steps = ((0, "prune", 0.5), (1, "prune", 0.5))
    config = tiny(depth=3, image_size=(16, 16), **fields, reduce_tokens=steps)
    model = randomize(keras_vit.build_vit(config))
    counts = {
        model.get_layer(f"block_{block:02d}_mlp_add").output.shape[1]
        for block in (1, 2)
    }
    assert counts <= {config.token_counts[2], None}
    model.compile("sgd", "mse", jit_compile=xla)
    before = [it.copy() for it in model.get_weights()]
    images = rng.uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    loss = model.fit(images, np.ones((4, 3)), verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.8


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_halves_choose_like_floats_where_scores_are_apart(policy, tiny, rng, randomize):
    config = tiny(depth=3, image_size=(16, 16), reduce_tokens=((0, "prune", 0.5),))
    single = randomize(keras_vit.build_vit(config))
    keras.config.set_dtype_policy(policy)
    half = keras_vit.build_vit(config)
    half.set_weights(single.get_weights())
    images = rng.uniform(0, 255, (64, 16, 16, 3)).astype("float32")
    apart = score_gaps(single, images) > 0.03  # bfloat16 has 8 bits
    assert apart.sum() >= 2
    kept, other = (
        token_groups(it, images[apart])[:, 1] < 1 + 8 for it in (single, half)
    )
    np.testing.assert_array_equal(kept, other)
