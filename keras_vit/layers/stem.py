"""Convolutions before the patches."""

from collections.abc import Sequence

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_vit")
class ConvStem(layers.Layer):
    """maxpool(max(0, images * W + b)), once for each number of filters.

    Each 3x3 convolution keeps the sides, each 3x3 pooling with stride 2 halves them.

    Args:
        filters: Filters of each convolution, first to last.

    Input shape: `(b, height, width, c)`.
    Output shape: `(b, height / 2^s, width / 2^s, filters[-1])` for s convolutions.

    Source: https://arxiv.org/abs/2104.05704, section 3.3 (convolutional tokenization).
    """

    def __init__(self, filters: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.convolutions = [
            layers.Conv2D(
                count,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                dtype=self.dtype_policy,
                name=f"convolution_{index}",
            )
            for index, count in enumerate(self.filters)
        ]

    def build(self, input_shape):
        for convolution in self.convolutions:
            convolution.build(input_shape)
            height, width, _ = input_shape[1:]
            input_shape = (None, -(-height // 2), -(-width // 2), convolution.filters)

    def call(self, images, training=False):
        for convolution in self.convolutions:
            images = convolution(images)
            if training:
                images = _halve(_halve(images, axis=1), axis=2)
            else:
                images = ops.max_pool(images, pool_size=3, strides=2, padding="same")
        return images

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


def _halve(images, axis: int):
    """Max pooling along one axis: windows of 3, stride 2, padded as in `"same"`.

    Twice, it is `ops.max_pool` of numbers >= 0. XLA has no fast gradient of that on a
    CPU; with these slices, training a small model takes a fifth to a third less time.
    """
    side = images.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (side % 2, 1)
    images = ops.pad(images, padding)
    slices = [slice(None)] * 4
    parts = []
    for start in range(3):
        slices[axis] = slice(start, start + side, 2)
        parts.append(images[tuple(slices)])
    return ops.maximum(ops.maximum(parts[0], parts[1]), parts[2])
