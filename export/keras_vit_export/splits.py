"""Which images serve which purpose: calibration, choice, report."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_vit.pipeline import ImageData
from keras_vit_export import calibration

# Images on which ranges and scales are compared, by SNR: labels are not needed.
_COMPARED = 32

Images = ImageData | tf.data.Dataset | np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images for each purpose; `None` where there are none.

    Attributes:
        calibration: Uint8 `(count, height, width, c)`: ranges are measured on them.
        choice: Batches of images and labels: what is chosen is chosen on them.
        report: Batches of images and labels: what is reported is measured on them.
        counts: `{"calibration": {"split": "train", "images": 64}, ...}`.
    """

    calibration: np.ndarray | None
    choice: tf.data.Dataset | None
    report: tf.data.Dataset | None
    counts: dict[str, dict]

    @functools.cached_property
    def compared(self) -> np.ndarray:
        """Images on which ranges and scales are compared."""
        if self.choice is None:
            return self.calibration[:_COMPARED]
        return _first_images(self.choice, _COMPARED)


def find_splits(images: Images) -> Splits:
    """What `export` was given, by purpose."""
    if images is None:
        return Splits(None, None, None, {})
    if isinstance(images, ImageData):
        names = {"calibration": "train", "choice": "validation", "report": "test"}
        batches = {purpose: getattr(images, name) for purpose, name in names.items()}
        counts = {
            purpose: {"split": name, "images": images.counts[name]}
            for purpose, name in names.items()
        }
    elif isinstance(images, tf.data.Dataset):
        if images.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("A data set must end. Received: one that repeats for ever")
        purposes = ("calibration", "choice", "report")
        batches = dict.fromkeys(purposes, images)
        count = sum(len(labels) for _, labels in images.as_numpy_iterator())
        counts = {name: {"split": "given", "images": count} for name in purposes}
    else:
        rows = _pixels(np.asarray(images)[: calibration.IMAGES])
        counts = {"calibration": {"split": "given", "images": len(rows)}}
        return Splits(rows, None, None, counts)
    rows = _first_images(batches["calibration"], calibration.IMAGES)
    counts["calibration"]["images"] = len(rows)
    return Splits(rows, batches["choice"], batches["report"], counts)


def _first_images(batches: tf.data.Dataset, count: int) -> np.ndarray:
    found = []
    for images, _ in batches.as_numpy_iterator():
        found.append(images)
        if sum(map(len, found)) >= count:
            break
    return _pixels(np.concatenate(found)[:count])


def _pixels(images: np.ndarray) -> np.ndarray:
    """The images, if they are numbers in 0..255: others crash the quantizer."""
    numbers = images.dtype.kind in "iuf"
    if not numbers or not ((images >= 0) & (images <= 255)).all():
        raise ValueError(
            "Images must be pixels in 0..255, without NaN. Received: "
            f"{images.dtype}, {images.min()}..{images.max()}"
            if numbers
            else f"Images must be pixels in 0..255. Received: {images.dtype}"
        )
    return images


def image_shape(images: tf.data.Dataset | np.ndarray) -> tuple[int, ...]:
    """(height, width, c) of the images of batches or of an array."""
    if isinstance(images, tf.data.Dataset):
        return tuple(images.element_spec[0].shape[1:])
    return tuple(images.shape[1:])
