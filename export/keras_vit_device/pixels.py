"""Image files -> pixels that a model takes. NumPy and Pillow, nothing else.

Training and the device's runtime both call this module, so both see the same pixels.
"""

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Pillow logs some damage beside raising an error, and a logger that nobody listens to
# writes to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_NO_WHITE = "32-bit pixels have no agreed white."
# Filters for a side of 135 million pixels take gigabytes; panoramas have some 100,000.
MAX_SIDE = 1_000_000
_TOO_LONG = f"a side of more than {MAX_SIDE:,} pixels"
# Formats that Pillow names but decodes by another program (Ghostscript runs what an EPS
# says), on Windows only, or not at all: Keras' weights are `.h5` too.
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# 16-bit grey in 8 bits: x / 257, rounded. Pillow's own conversion cuts off at 255.
_EIGHT_OF_SIXTEEN = ((np.arange(2**16) + 128) // 257).astype("uint8")
HEIC_REASON = "HEIC: pip install 'keras-vit-edge[heif]'"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


class UnreadableError(OSError):
    """A file is missing, damaged, no image, or of pixels that nothing here agrees on.

    Attributes:
        reason: Why, in a few words that files of one kind share.
    """

    def __init__(self, name: str, reason: str, details: str):
        super().__init__(f"{name} is unreadable or no image. {details}")
        self.reason = reason


# A path, the content of a file, or an image that Pillow has opened.
ImageFile = str | os.PathLike[str] | bytes | Image.Image


def open_image(image: ImageFile) -> Image.Image:
    """Decodes a file whole: 8-bit grey or RGB, turned as its EXIF orientation says.

    16-bit grey is scaled to 8 bits; of an animation the first frame is taken; alpha is
    dropped. Only formats that Pillow decodes in this process are opened.

    HEIC is read where pillow-heif is installed (extra `heif`).

    Raises:
        UnreadableError: If the file is missing, damaged, no image, has 32-bit pixels,
            more of them than `PIL.Image.MAX_IMAGE_PIXELS` allows (twice that number), a
            side longer than `MAX_SIDE`, or takes more memory than there is.
    """
    with _one_error(image), _open(image) as opened:
        if max(opened.size) > MAX_SIDE:
            raise ValueError(_TOO_LONG)
        # In place: a copy of a large image is hundreds of megabytes.
        ImageOps.exif_transpose(opened, in_place=True)
        return _eight_bits(opened)


def read_image(image: ImageFile, rule: dict[str, Any]) -> np.ndarray:
    """`open_image`, then `fit_image` by these keywords; what fails there counts too."""
    with _one_error(image):
        return fit_image(open_image(image), **rule)


@functools.cache
def decoded_formats() -> tuple[str, ...]:
    """Formats that Pillow decodes in this process, in the order in which it tries them."""
    _register_heic()
    Image.init()
    return tuple(it for it in Image.ID if it in Image.OPEN and it not in NOT_DECODED)


@contextlib.contextmanager
def _open(image: ImageFile) -> Iterator[Image.Image]:
    if isinstance(image, Image.Image):
        yield image.copy()  # turned in place
        return
    file = io.BytesIO(image) if isinstance(image, bytes) else image
    with Image.open(file, formats=decoded_formats()) as opened:
        yield opened


@contextlib.contextmanager
def _one_error(image: ImageFile) -> Iterator[None]:
    """Makes one kind of error of all that a damaged or hostile image can raise."""
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:  # decoders raise each its own
        path = None if isinstance(image, bytes | Image.Image) else image
        reason = _reason(error, path)
        details = reason if reason == HEIC_REASON else str(error)
        name = "The image" if path is None else f"'{path}'"
        raise UnreadableError(name, reason, details or type(error).__name__) from error


def _reason(error: Exception, path: str | os.PathLike[str] | None) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels, which is Pillow's limit"
        )
    if str(error) in (_NO_WHITE, _TOO_LONG):
        return str(error).rstrip(".")
    if isinstance(error, MemoryError):
        return "more memory than there is"
    if isinstance(error, UnidentifiedImageError):
        if path is not None and is_heic(path):
            return HEIC_REASON
        empty = path is not None and os.path.getsize(path) == 0
        return "empty" if empty else "no image, or damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "damaged or cut off"


@functools.cache
def _register_heic() -> bool:
    """Lets Pillow open HEIC, if pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_heic(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those of phones do that Pillow alone does not read."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_EIGHT_OF_SIXTEEN[np.asarray(image)])
    if image.mode in ("I", "F"):
        raise ValueError(_NO_WHITE)
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


def check_pixels(images: np.ndarray) -> None:
    """Checks that images are pixels in 0..255, not scaled already.

    Raises:
        ValueError: If one is NaN or outside, or they are floats of 0..1 and not all 0.
    """
    if images.dtype == np.uint8 or not images.size:  # they can't be anything else
        return
    numbers = images.dtype.kind in "iuf"
    if not numbers or not ((images >= 0) & (images <= 255)).all():
        raise ValueError(
            "Images must be pixels in 0..255, without NaN. Received: "
            f"{images.dtype}, {images.min()}..{images.max()}"
            if numbers
            else f"Images must be pixels in 0..255. Received: {images.dtype}"
        )
    if images.dtype.kind == "f" and 0 < images.max() <= 1:
        raise ValueError(
            "Images must be pixels in 0..255: models here scale them by themselves. "
            f"Received: {images.min()}..{images.max()}"
        )


def check_channels_last(shape: tuple[int, ...], name: str) -> None:
    """Checks that a model takes images with their channels last.

    Args:
        shape: (height, width, channels), as it is read here.
        name: Of the model, in the message.

    Raises:
        ValueError: If these are (channels, height, width), as of PyTorch.
    """
    if shape[0] in (1, 3) and shape[2] > 4:
        raise ValueError(
            f"{name} takes its channels first, {shape}, and images have them last: "
            "convert it for (height, width, channels)."
        )
