"""Image files -> pixels that a model takes. NumPy and Pillow, nothing else.

Training and the device's runtime both call this module, so both see the same pixels.
It stands beside the packages because `import keras_vit` loads TensorFlow, and the
runtime must not.
"""

import logging
import pathlib
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Pillow logs some damage beside raising an error, and a logger that nobody listens to
# writes to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# What Pillow's decoders raise on damaged files, each its own; and if a file asks for more
# memory than there is.
_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


def open_image(path: str | bytes | pathlib.Path) -> Image.Image:
    """Decodes a file whole: 8-bit grey or RGB, turned as its EXIF orientation says.

    16-bit grey is scaled to 8 bits; of an animation the first frame is taken; alpha is
    dropped.

    Raises:
        OSError: If the file is missing, damaged, no image, or has 32-bit pixels.
    """
    try:
        with Image.open(path) as image:
            # In place: a copy of a large image is hundreds of megabytes.
            ImageOps.exif_transpose(image, in_place=True)
            return _eight_bits(image)
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise OSError(f"'{path}' is unreadable or no image. {reason}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion cuts off at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) / 257).round().astype("uint8"))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no agreed white.")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def fit_image(
    image: Image.Image,
    image_size: tuple[int, int],
    channels: int,
    resize: str = "stretch",
    interpolation: str = "bilinear",
    crop: float = 1.0,
) -> np.ndarray:
    """Resizes the middle of an image.

    Args:
        image: 8-bit grey or RGB.
        image_size: Height and width of the result in pixels.
        channels: 1 or 3.
        resize: `"stretch"` keeps all of the image, `"crop"` the largest middle part
            with the proportions of the result.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`; the last two average
            over all pixels that a smaller image covers.
        crop: Part of each side of that which is kept, around the middle, in (0, 1].

    Returns:
        Uint8 array `(height, width, channels)`.

    Raises:
        ValueError: If the channels are neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(
            "Images are made grey or RGB: a model for them has 1 or 3 channels. "
            f"Received: channels={channels}"
        )
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = image_size
    if image.size != (width, height) or crop != 1.0:
        kept_width, kept_height = image.width * crop, image.height * crop
        if resize == "crop":
            scale = min(kept_width / width, kept_height / height)
            # Rounding must not make them larger than the image.
            kept_width = min(width * scale, kept_width)
            kept_height = min(height * scale, kept_height)
        left = (image.width - kept_width) / 2
        top = (image.height - kept_height) / 2
        box = (left, top, left + kept_width, top + kept_height)
        image = image.resize((width, height), _FILTERS[interpolation], box)
    return np.asarray(image, "uint8").reshape(height, width, channels)


def fit_array(pixels: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    """`fit_image` of uint8 pixels `(height, width, 1 or 3)`, by its keywords."""
    return fit_image(
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels), **rule
    )
