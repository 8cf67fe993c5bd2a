"""Scaled dot-product attention, and many heads of it."""

from collections.abc import Callable

import keras
from keras import KerasTensor, layers, ops


def scaled_dot_product_attention(
    q: KerasTensor,
    k: KerasTensor,
    v: KerasTensor,
    dropout: Callable[[KerasTensor], KerasTensor] | None = None,
) -> tuple[KerasTensor, KerasTensor]:
    """softmax(Q K^T / sqrt(d_k)) V, the rows of V averaged by how well K matches Q.

    Args:
        q: Queries, shape `(b, h, n_q, e)`; e is the papers' d_k.
        k: Keys, shape `(b, h, n, e)`.
        v: Values, shape `(b, h, n, e)`.
        dropout: Called with the attention weights before they meet V, or `None`.

    Returns:
        The output, shape `(b, h, n_q, e)`, and the attention weights, shape
        `(b, h, n_q, n)`, whose rows sum to 1.

    Source: https://arxiv.org/abs/1706.03762, equation 1.
    """
    # Scaling Q instead of the scores touches n e numbers instead of n n, and keeps
    # the scores of half-precision models small.
    q = q * (q.shape[-1] ** -0.5)
    weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))))
    mixed = weights if dropout is None else dropout(weights)
    return ops.matmul(mixed, v), weights


@keras.saving.register_keras_serializable(package="keras_vit")
class MultiHeadAttention(layers.Layer):
    """Concat(head_1 .. head_h) W_o, head_i = attention(X W_q^i, Z W_k^i, Z W_v^i).

    Z is X itself (self-attention) unless `context` is given.

    Args:
        num_heads: Number of heads h; it divides the width d.
        qk_norm: Whether LayerNorm is applied to queries and keys in each head.
        norm_epsilon: Epsilon of those norms.
        dropout: Dropout rate of the attention weights, in [0, 1).

    Call arguments:
        tokens: X, shape `(b, n_q, d)`.
        context: Z, shape `(b, n, d)`, or `None` for X.
        return_weights: Whether to return the attention weights too.

    Output shape: `(b, n_q, d)`, and `(b, h, n_q, n)` if the weights are asked for.

    Raises:
        ValueError: If h does not divide d.

    Sources: https://arxiv.org/abs/1706.03762, section 3.2.2; q/k norm
        https://arxiv.org/abs/2302.05442, section 2.
    """

    def __init__(
        self,
        num_heads: int,
        qk_norm: bool = False,
        norm_epsilon: float = 1e-6,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        self.norm_epsilon = norm_epsilon
        self.dropout = dropout
        self._dropout = layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, tokens_shape, context_shape=None):
        width = tokens_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                "num_heads must divide the width of the tokens. Received: "
                f"num_heads={self.num_heads}, input shape {tuple(tokens_shape)}"
            )
        # Three dense layers are faster under XLA than one of three times the width.
        for name in ("query", "key", "value", "output_projection"):
            dense = layers.Dense(width, dtype=self.dtype_policy, name=name)
            dense.build((None, None, width))
            setattr(self, name, dense)
        if self.qk_norm:
            for name in ("query_norm", "key_norm"):
                norm = layers.LayerNormalization(
                    epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=name
                )
                norm.build((None, None, None, width // self.num_heads))
                setattr(self, name, norm)

    def call(self, tokens, context=None, return_weights=False, training=False):
        context = tokens if context is None else context
        q = self._split_heads(self.query(tokens))  # (b, h, n_q, e)
        k = self._split_heads(self.key(context))  # (b, h, n, e)
        v = self._split_heads(self.value(context))
        if self.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        heads, weights = scaled_dot_product_attention(
            q, k, v, lambda w: self._dropout(w, training=training)
        )
        output = self.output_projection(self._merge_heads(heads))
        return (output, weights) if return_weights else output

    def _split_heads(self, x):
        e = x.shape[-1] // self.num_heads
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, e))
        return ops.transpose(x, (0, 2, 1, 3))

    def _merge_heads(self, x):
        x = ops.transpose(x, (0, 2, 1, 3))  # (b, n, h, e)
        return ops.reshape(x, (-1, ops.shape(x)[1], x.shape[2] * x.shape[3]))

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "qk_norm": self.qk_norm,
            "norm_epsilon": self.norm_epsilon,
            "dropout": self.dropout,
        }
