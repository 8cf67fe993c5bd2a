import numpy as np
import pytest

from keras_vit import layers


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def norm(x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def attention_by_hand(layer, x, z, heads, epsilon=None):
    weights = {
        w.path.split("/", 1)[-1]: np.asarray(w, "float64") for w in layer.weights
    }

    def dense(name, t):
        kernel = next(v for k, v in weights.items() if k.endswith(f"{name}/kernel"))
        bias = next(v for k, v in weights.items() if k.endswith(f"{name}/bias"))
        return t @ kernel + bias

    q, k, v = dense("query", x), dense("key", z), dense("value", z)
    e = x.shape[-1] // heads
    outputs, maps = [], []
    for head in range(heads):
        part = slice(head * e, (head + 1) * e)
        qh, kh = q[..., part], k[..., part]
        if epsilon:
            qh, kh = norm(qh, epsilon), norm(kh, epsilon)
        maps.append(softmax(qh @ kh.transpose(0, 2, 1) / np.sqrt(e)))
        outputs.append(maps[-1] @ v[..., part])
    joined = np.concatenate(outputs, axis=-1)
    return dense("output_projection", joined), np.stack(maps, axis=1)


@pytest.fixture
def attention(rng, randomize):
    layer = layers.MultiHeadAttention(2)
    layer(np.zeros((1, 5, 8), "float32"))
    return randomize(layer)


def test_scaled_dot_product_attention_is_the_formula(rng):
    q, k, v = (rng.normal(size=(2, 3, n, 4)) for n in (5, 6, 6))
    got, weights = layers.scaled_dot_product_attention(
        *(t.astype("float32") for t in (q, k, v))
    )
    expected = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(4))
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(got, expected @ v, atol=1e-5)


def test_multi_head_attention_is_the_formula(attention, rng):
    x = rng.normal(size=(2, 5, 8))
    expected, maps = attention_by_hand(attention, x, x, 2)
    got, weights = attention(x.astype("float32"), return_weights=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(weights, maps, atol=1e-5)


def test_context_gives_keys_and_values(attention, rng):
    x, z = rng.normal(size=(2, 1, 8)), rng.normal(size=(2, 5, 8))
    expected, _ = attention_by_hand(attention, x, z, 2)
    got = attention(x.astype("float32"), context=z.astype("float32"))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_qk_norm_normalises_each_head(rng, randomize):
    x = rng.normal(size=(2, 5, 8))
    layer = layers.MultiHeadAttention(2, qk_norm=True, norm_epsilon=1e-2)
    layer(x.astype("float32"))
    for dense in (layer.query, layer.key, layer.value, layer.output_projection):
        randomize(dense)
    expected, _ = attention_by_hand(layer, x, x, 2, epsilon=1e-2)
    np.testing.assert_allclose(layer(x.astype("float32")), expected, atol=1e-5)


def test_attention_ignores_the_order_of_tokens(attention, rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    order = rng.permutation(5)
    got = np.asarray(attention(x[:, order]))
    np.testing.assert_allclose(got, np.asarray(attention(x))[:, order], atol=1e-5)


def test_rows_of_the_weights_sum_to_one(attention, rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    _, weights = attention(x, return_weights=True)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, atol=1e-6)


def test_dropout_of_attention_weights_acts_in_training_only(rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    layer = layers.MultiHeadAttention(2, dropout=0.5)
    np.testing.assert_array_equal(layer(x), layer(x))
    assert not np.allclose(layer(x, training=True), layer(x, training=True))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads=3"):
        layers.MultiHeadAttention(3)(np.zeros((1, 5, 8), "float32"))
