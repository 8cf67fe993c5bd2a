"""From all tokens to one vector."""

import keras
from keras import layers, ops

from keras_vit.layers.attention import MultiHeadAttention
from keras_vit.layers.mlp import FeedForward


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenPool(layers.Layer):
    """The token at one place: 0 is the class token, 1 the distillation token.

    Args:
        index: Place of the token.

    Input shape: `(b, n, d)`.  Output shape: `(b, d)`.

    Source: https://arxiv.org/abs/2010.11929, equation 4.
    """

    def __init__(self, index: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, tokens):
        return tokens[:, self.index]

    def get_config(self):
        return super().get_config() | {"index": self.index}


@keras.saving.register_keras_serializable(package="keras_vit")
class MeanPool(layers.Layer):
    """Mean of the patch tokens; the prefix tokens are left out.

    Args:
        num_prefix_tokens: Number of tokens before the patch tokens.
        fused_share: Part of the patches that the last token stands for, in [0, 1),
            where that is one of `PruneTokens`; the mean weighs it by that.

    Input shape: `(b, n, d)`.  Output shape: `(b, d)`.

    Source: https://arxiv.org/abs/2205.01580, section 2 (global average pooling).
    """

    def __init__(self, num_prefix_tokens: int = 0, fused_share: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.fused_share = fused_share

    def call(self, tokens):
        return _mean(tokens[:, self.num_prefix_tokens :], self.fused_share)

    def get_config(self):
        return super().get_config() | {
            "num_prefix_tokens": self.num_prefix_tokens,
            "fused_share": self.fused_share,
        }


def _mean(patches, fused_share: float):
    """Mean `(b, d)` of `(b, n, d)`; the last one has a share of its own."""
    if not fused_share:
        return ops.mean(patches, axis=1)
    kept = ops.mean(patches[:, :-1], axis=1)
    return (1.0 - fused_share) * kept + fused_share * patches[:, -1]


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenAndMeanPool(layers.Layer):
    """The class token and the mean of the patch tokens, one after the other.

    Args:
        num_prefix_tokens: Number of tokens before the patch tokens, the class token
            among them.
        fused_share: As of `MeanPool`.

    Input shape: `(b, n, d)`.  Output shape: `(b, 2 d)`.

    Source: https://arxiv.org/abs/2304.07193, appendix B.3 (linear evaluation).
    """

    def __init__(self, num_prefix_tokens: int = 1, fused_share: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.fused_share = fused_share

    def call(self, tokens):
        mean = _mean(tokens[:, self.num_prefix_tokens :], self.fused_share)
        return ops.concatenate([tokens[:, 0], mean], axis=-1)

    def get_config(self):
        return super().get_config() | {
            "num_prefix_tokens": self.num_prefix_tokens,
            "fused_share": self.fused_share,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class AttentionPool(layers.Layer):
    """y + MLP(LN(y)) with y = attention of one learned query over all tokens (MAP).

    Args:
        num_heads: Number of heads h; it divides the width d.
        mlp_dim: Width m of the feed-forward's hidden layer.
        activation: Activation of the feed-forward.
        norm_epsilon: Epsilon of the inner norm.

    Input shape: `(b, n, d)`.  Output shape: `(b, d)`.

    Raises:
        ValueError: If h does not divide d, or the activation is unknown.

    Source: https://arxiv.org/abs/2106.04560, section 3.2 (multihead attention pooling).
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        activation: str = "gelu",
        norm_epsilon: float = 1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        inner = {"dtype": self.dtype_policy}
        self.attention = MultiHeadAttention(num_heads, name="attention", **inner)
        self.norm = layers.LayerNormalization(
            epsilon=norm_epsilon, name="norm", **inner
        )
        self.mlp = FeedForward(mlp_dim, activation, name="mlp", **inner)

    def build(self, input_shape):
        width = input_shape[-1]
        self.probe = self.add_weight(
            shape=(1, 1, width), initializer="glorot_uniform", name="probe"
        )
        self.attention.build((None, 1, width), input_shape)
        self.norm.build((None, 1, width))
        self.mlp.build((None, 1, width))

    def call(self, tokens):
        probe = ops.cast(self.probe, tokens.dtype)
        probe = ops.repeat(probe, ops.shape(tokens)[0], axis=0)  # (b, 1, d)
        pooled = self.attention(probe, context=tokens)
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled[:, 0]

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class SequencePool(layers.Layer):
    """softmax(X w + b)^T X: the tokens averaged with learned importance.

    Input shape: `(b, n, d)`.  Output shape: `(b, d)`.

    Source: https://arxiv.org/abs/2104.05704, section 3.2 (SeqPool).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.importance = layers.Dense(1, dtype=self.dtype_policy, name="importance")

    def build(self, input_shape):
        self.importance.build(input_shape)

    def call(self, tokens):
        weights = ops.softmax(self.importance(tokens), axis=1)  # (b, n, 1)
        pooled = ops.matmul(ops.transpose(weights, (0, 2, 1)), tokens)
        return pooled[:, 0]
