import numpy as np
import pytest
from scipy.special import erf

from keras_vit import layers


def by_hand(activation, x, weights):
    w1, b1, *gate, w2, b2 = weights
    hidden = x @ w1 + b1
    if activation == "relu":
        hidden = np.maximum(0, hidden)
    elif activation == "gelu":
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    elif activation == "gelu_tanh":
        inner = np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)
        hidden = hidden * (1 + np.tanh(inner)) / 2
    else:
        w3, b3 = gate
        hidden = hidden / (1 + np.exp(-hidden)) * (x @ w3 + b3)
    return hidden @ w2 + b2


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "swiglu"])
def test_the_feed_forward_is_the_formula(activation, rng, randomize):
    x = rng.normal(size=(2, 5, 8))
    layer = layers.FeedForward(12, activation)
    layer(x.astype("float32"))
    randomize(layer)
    expected = by_hand(activation, x, layer.get_weights())
    np.testing.assert_allclose(layer(x.astype("float32")), expected, atol=2e-5)


def test_the_two_gelus_differ():
    x = np.linspace(-3, 3, 64, dtype="float32").reshape(1, 8, 8)
    outputs = []
    for activation in ("gelu", "gelu_tanh"):
        layer = layers.FeedForward(8, activation)
        layer(x)
        eye, zero = np.eye(8), np.zeros(8)
        layer.set_weights([eye, zero, eye, zero])
        outputs.append(np.asarray(layer(x)))
    assert 1e-5 < np.abs(outputs[0] - outputs[1]).max() < 1e-3


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="'swish'"):
        layers.FeedForward(4, "swish")
