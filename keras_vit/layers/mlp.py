"""The feed-forward network of a block."""

import keras
from keras import layers, ops

from keras_vit.config import ACTIVATIONS, check_choice


def _activation(name):
    """`ops` function of one of the three activations that need no second input."""
    return {
        "relu": ops.relu,
        "gelu": lambda x: ops.gelu(x, approximate=False),
        "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    }[name]


@keras.saving.register_keras_serializable(package="keras_vit")
class FeedForward(layers.Layer):
    """f(x W1 + b1) W2 + b2, the same for every token.

    - `"relu"`: f(x) = max(0, x)
    - `"gelu"`: f(x) = x Phi(x) = x (1 + erf(x / sqrt(2))) / 2
    - `"gelu_tanh"`: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    - `"swiglu"`: (silu(x W1 + b1) * (x W3 + b3)) W2 + b2, silu(x) = x / (1 + e^-x)

    Args:
        mlp_dim: Width m of the hidden layer.
        activation: One of the four above.
        dropout: Dropout rate after each dense layer, in [0, 1).

    Input shape: `(b, n, d)`.  Output shape: `(b, n, d)`.

    Raises:
        ValueError: If the activation is unknown.

    Sources: https://arxiv.org/abs/1706.03762, equation 2; GELU
        https://arxiv.org/abs/1606.08415; SwiGLU https://arxiv.org/abs/2002.05202.
    """

    def __init__(
        self,
        mlp_dim: int,
        activation: str = "gelu",
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("activation", activation, ACTIVATIONS)
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.dropout = dropout
        self._dropout = layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape):
        width = input_shape[-1]
        self.hidden = self._dense(self.mlp_dim, width, "hidden")
        if self.activation == "swiglu":
            self.hidden_value = self._dense(self.mlp_dim, width, "hidden_value")
        self.output_projection = self._dense(width, self.mlp_dim, "output_projection")

    def _dense(self, units, inputs, name):
        dense = layers.Dense(units, dtype=self.dtype_policy, name=name)
        dense.build((None, None, inputs))
        return dense

    def call(self, tokens, training=False):
        hidden = self.hidden(tokens)  # (b, n, m)
        if self.activation == "swiglu":
            hidden = ops.silu(hidden) * self.hidden_value(tokens)
        else:
            hidden = _activation(self.activation)(hidden)
        hidden = self._dropout(hidden, training=training)
        return self._dropout(self.output_projection(hidden), training=training)

    def get_config(self):
        return super().get_config() | {
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "dropout": self.dropout,
        }
