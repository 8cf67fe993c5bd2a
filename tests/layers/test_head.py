import numpy as np
import pytest
from scipy.special import erf

from keras_vit import layers


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


@pytest.fixture
def tokens(rng):
    return rng.normal(size=(2, 6, 8))


def test_token_pool_takes_one_token(tokens):
    got = layers.TokenPool(1)(tokens.astype("float32"))
    np.testing.assert_allclose(got, tokens[:, 1], atol=1e-6)


def test_mean_pool_leaves_prefix_tokens_out(tokens):
    got = layers.MeanPool(2)(tokens.astype("float32"))
    np.testing.assert_allclose(got, tokens[:, 2:].mean(axis=1), atol=1e-6)


def test_token_and_mean_pool_puts_both_side_by_side(tokens):
    got = layers.TokenAndMeanPool(3)(tokens.astype("float32"))
    expected = np.concatenate([tokens[:, 0], tokens[:, 3:].mean(axis=1)], axis=-1)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_sequence_pool_is_the_formula(tokens, randomize):
    layer = layers.SequencePool()
    layer(tokens.astype("float32"))
    randomize(layer)
    w, b = layer.get_weights()
    weights = softmax(tokens @ w + b, axis=1)
    expected = (weights * tokens).sum(axis=1)
    np.testing.assert_allclose(layer(tokens.astype("float32")), expected, atol=1e-5)


def test_attention_pool_is_the_formula(tokens, randomize):
    layer = layers.AttentionPool(2, 12, norm_epsilon=1e-3)
    layer(tokens.astype("float32"))
    randomize(layer)
    probe = np.asarray(layer.probe).repeat(2, axis=0)
    y = np.asarray(layer.attention(probe, context=tokens.astype("float32")), "float64")
    centred = y - y.mean(-1, keepdims=True)
    gamma, beta = layer.norm.get_weights()
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    normed = centred / deviation * gamma + beta
    w1, b1, w2, b2 = layer.mlp.get_weights()
    expected = (y + gelu(normed @ w1 + b1) @ w2 + b2)[:, 0]
    np.testing.assert_allclose(layer(tokens.astype("float32")), expected, atol=2e-5)


def test_a_head_is_dense_layers_with_gelu_between(rng, randomize):
    x = rng.normal(size=(3, 8))
    layer = layers.ClassificationHead(4, hidden=(6,), head_output="softmax")
    layer(x.astype("float32"))
    randomize(layer)
    w1, b1, w2, b2 = layer.get_weights()
    expected = softmax(gelu(x @ w1 + b1) @ w2 + b2)
    np.testing.assert_allclose(layer(x.astype("float32")), expected, atol=1e-5)


def test_an_untrained_head_predicts_every_class_equally(rng):
    x = rng.normal(size=(3, 8)).astype("float32")
    got = layers.ClassificationHead(4, hidden=(6,), head_output="softmax")(x)
    np.testing.assert_allclose(got, 0.25)


def test_logits_and_softmax_differ_by_a_softmax(rng, randomize):
    x = rng.normal(size=(3, 8)).astype("float32")
    logits = layers.ClassificationHead(4)
    probabilities = layers.ClassificationHead(4, head_output="softmax")
    logits(x), probabilities(x)
    probabilities.set_weights(randomize(logits).get_weights())
    np.testing.assert_allclose(
        probabilities(x), softmax(np.asarray(logits(x))), atol=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_head_in_half_precision_ends_in_float32(policy):
    head = layers.ClassificationHead(4, dtype=policy)
    assert head(np.ones((2, 8), "float32")).dtype == "float32"


def test_names_must_be_one_a_class():
    with pytest.raises(ValueError, match="2 names, num_classes=3"):
        layers.ClassificationHead(3, class_names=("a", "b"))
