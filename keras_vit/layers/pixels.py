"""Pixels -> numbers about 0, and how files become pixels."""

from collections.abc import Sequence

import keras
from keras import layers, ops


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
