"""Images -> patch tokens."""

import keras
from keras import layers, ops

from keras_vit.config import check_rate


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
