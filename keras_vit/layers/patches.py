"""Images -> patch tokens."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_vit.config import check_rate


@keras.saving.register_keras_serializable(package="keras_vit")
class PixelScaling(layers.Layer):
    """(pixel / 255 - mean) / std, each channel with its own mean and std.

    The model's first layer. It also holds how an image file becomes pixels, so that a
    saved model carries its whole contract; these fields change nothing in `call`.

    Args:
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, likewise; positive.
        resize: `"stretch"` or `"crop"`; see `keras_vit.Preprocessing`.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`.
        crop: Part of the resized image's side that is kept, in (0, 1].

    Input shape: `(b, height, width, c)`, pixels in 0..255.  Output shape: the same.

    Raises:
        ValueError: If there is not one mean and one std for each channel.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        resize: str = "stretch",
        interpolation: str = "bilinear",
        crop: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.resize = resize
        self.interpolation = interpolation
        self.crop = crop

    def build(self, input_shape):
        if not len(self.mean) == len(self.std) == input_shape[-1]:
            raise ValueError(
                "mean and std must have one number a channel. Received: "
                f"mean={self.mean}, std={self.std}, input shape {tuple(input_shape)}"
            )

    def call(self, images):
        images = ops.cast(images, self.compute_dtype)
        mean = ops.convert_to_tensor([255.0 * m for m in self.mean], images.dtype)
        scale = ops.convert_to_tensor([1 / (255.0 * s) for s in self.std], images.dtype)
        return (images - mean) * scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "mean": self.mean,
            "std": self.std,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "crop": self.crop,
        }


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


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbedding(layers.Layer):
    """token = flatten(patch) W + b for every p x p patch, row by row.

    Written as a convolution with stride p, which is the same sum.

    Args:
        width: Width d of a token.
        patch_size: Side p of a square patch, in pixels of this layer's input.

    Input shape: `(b, g_h p, g_w p, c)`.  Output shape: `(b, g_h g_w, d)`.

    Raises:
        ValueError: If p does not divide the image's sides.

    Source: https://arxiv.org/abs/2010.11929, equation 1.
    """

    def __init__(self, width: int, patch_size: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.patch_size = patch_size
        self.projection = layers.Conv2D(
            width,
            patch_size,
            strides=patch_size,
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape):
        if any(side % self.patch_size for side in input_shape[1:3]):
            raise ValueError(
                "patch_size must divide the sides of the image. Received: "
                f"patch_size={self.patch_size}, input shape {tuple(input_shape)}"
            )
        self.projection.build(input_shape)

    def call(self, images):
        grid = self.projection(images)  # (b, g_h, g_w, d)
        _, rows, columns, _ = grid.shape
        return ops.reshape(grid, (-1, rows * columns, self.width))

    def get_config(self):
        return super().get_config() | {
            "width": self.width,
            "patch_size": self.patch_size,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchDropout(layers.Layer):
    """Leaves out a random part of the patch tokens of each image, in training.

    Prefix tokens stay; the kept patch tokens keep their order. Positions are added
    before, so the model still knows where a kept patch was.

    Args:
        rate: Part of the patch tokens that is left out, in [0, 1). At least one stays.
        num_prefix_tokens: Number of tokens before the patch tokens.
        seed: Seed of the random choice.

    Input shape: `(b, n, d)`.  Output shape: `(b, n, d)`, in training fewer tokens.

    Raises:
        ValueError: If the rate is outside [0, 1).

    Source: https://arxiv.org/abs/2212.00794, section 3 (masking without reconstruction).
    """

    def __init__(
        self,
        rate: float,
        num_prefix_tokens: int = 0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_rate("rate", rate)
        self.rate = rate
        self.num_prefix_tokens = num_prefix_tokens
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, tokens, training=False):
        if not training or self.rate == 0.0:
            return tokens
        prefix = tokens[:, : self.num_prefix_tokens]
        patches = tokens[:, self.num_prefix_tokens :]
        count = patches.shape[1]
        kept = max(1, round(count * (1.0 - self.rate)))
        noise = keras.random.uniform(
            (ops.shape(patches)[0], count), seed=self.seed_generator
        )
        chosen = ops.sort(ops.top_k(noise, kept, sorted=False)[1], axis=1)  # (b, kept)
        patches = ops.take_along_axis(patches, chosen[:, :, None], axis=1)
        return ops.concatenate([prefix, patches], axis=1)

    def compute_output_shape(self, input_shape):
        batch, _, width = input_shape
        return batch, None, width

    def get_config(self):
        return super().get_config() | {
            "rate": self.rate,
            "num_prefix_tokens": self.num_prefix_tokens,
            "seed": self.seed,
        }
