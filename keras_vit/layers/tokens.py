"""Class, distillation and register tokens: tokens that belong to no patch."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_vit")
class PrefixTokens(layers.Layer):
    """[class, distillation, registers, patches]: learned tokens before the patches.

    Args:
        class_token: Whether a class token comes first.
        distillation_token: Whether a distillation token follows.
        num_registers: Number of register tokens after them.

    Input shape: `(b, n, d)`.  Output shape: `(b, prefix + n, d)`.

    Raises:
        ValueError: If there is no token to prepend.

    Sources: class https://arxiv.org/abs/2010.11929, equation 1; distillation
        https://arxiv.org/abs/2012.12877, section 4; registers
        https://arxiv.org/abs/2309.16588, section 2.2.
    """

    def __init__(
        self,
        class_token: bool = True,
        distillation_token: bool = False,
        num_registers: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.class_token = class_token
        self.distillation_token = distillation_token
        self.num_registers = num_registers
        counts = {
            "class_token": int(class_token),
            "distillation_token": int(distillation_token),
            "register_tokens": num_registers,
        }
        self._counts = {name: count for name, count in counts.items() if count}
        if not self._counts:
            raise ValueError("PrefixTokens needs at least one token to prepend.")

    def build(self, input_shape):
        self._tokens = [
            self.add_weight(
                shape=(1, count, input_shape[-1]),
                initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                name=name,
            )
            for name, count in self._counts.items()
        ]

    def call(self, patches):
        prefix = ops.concatenate(
            [ops.cast(token, patches.dtype) for token in self._tokens], axis=1
        )
        prefix = ops.repeat(prefix, ops.shape(patches)[0], axis=0)  # (b, prefix, d)
        return ops.concatenate([prefix, patches], axis=1)

    def compute_output_shape(self, input_shape):
        batch, count, width = input_shape
        if count is not None:
            count += sum(self._counts.values())
        return batch, count, width

    def get_config(self):
        return super().get_config() | {
            "class_token": self.class_token,
            "distillation_token": self.distillation_token,
            "num_registers": self.num_registers,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class FirstTokens(layers.Layer):
    """All tokens; in training the first ones alone, while `alone` is set.

    In the last block, where the pool reads only these, every query and every
    feed-forward of another token is work whose gradient is zero. Another model on the
    same layers may read the others, so `alone` is set by who knows what is trained:
    `keras_vit.train`.

    Args:
        count: Number of tokens that are kept.

    Input shape: `(b, n, d)`.  Output shape: `(b, count, d)` or `(b, n, d)`.

    Source: https://arxiv.org/abs/2103.17239, section 3 (the last layers of CaiT
        compute nothing but the class token).
    """

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.alone = False

    def call(self, tokens, training=False):
        return tokens[:, : self.count] if training and self.alone else tokens

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"count": self.count}
