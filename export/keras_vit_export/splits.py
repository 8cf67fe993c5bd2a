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
    """What `export` was given, by purpose.

    Raises:
        ValueError: If it is none of the kinds that `export` takes.
    """
    if images is None:
        return Splits(None, None, None, {})
    if isinstance(images, ImageData):
        return _splits(
            {"calibration": images.sample, "choice": images.validation}
            | {"report": images.test},
            {"calibration": "train", "choice": "validation", "report": "test"},
            {"choice": images.counts["validation"], "report": images.counts["test"]},
        )
    purposes = ("calibration", "choice", "report")
    names = dict.fromkeys(purposes, "given")
    if isinstance(images, tf.data.Dataset):
        _check_batches(images)
        count = sum(len(labels) for _, labels in images.as_numpy_iterator())
        counts = {"choice": count, "report": count}
        return _splits(dict.fromkeys(purposes, images), names, counts)
    rows = _pixels(_array(images)[: calibration.IMAGES])
    counts = {"calibration": len(rows), "choice": len(rows[:_COMPARED])}
    return Splits(rows, None, None, _named(names, counts))


def _splits(batches, names, counts) -> Splits:
    rows = _first_images(batches["calibration"], calibration.IMAGES)
    counts = {"calibration": len(rows)} | counts
    return Splits(rows, batches["choice"], batches["report"], _named(names, counts))


def _named(names: dict[str, str], counts: dict[str, int]) -> dict[str, dict]:
    return {
        purpose: {"split": names[purpose], "images": count}
        for purpose, count in counts.items()
    }


def _check_batches(images: tf.data.Dataset) -> None:
    if images.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("A data set must end. Received: one that repeats for ever")
    spec = images.element_spec
    parts = spec if isinstance(spec, tuple) else ()
    ranks = [getattr(getattr(it, "shape", None), "rank", None) for it in parts]
    if len(ranks) != 2 or ranks[0] != 4 or ranks[1] not in (1, 2):
        raise ValueError(
            "A data set must give batches of images (b, height, width, c) and labels "
            f"(b,). Received: {spec}"
        )


def _array(images) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError:  # lists of several shapes
        array = np.zeros(0)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            "Images must be an ImageData, a tf.data.Dataset of batches, or an array "
            "(count, height, width, c). Received: "
            f"{type(images).__name__} of shape {array.shape}"
        )
    return array


def _first_images(batches: tf.data.Dataset, count: int) -> np.ndarray:
    found = []
    for images, _ in batches.as_numpy_iterator():
        found.append(images)
        if sum(map(len, found)) >= count:
            break
    if not found:
        raise ValueError("The data set is empty.")
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
    if images.dtype.kind == "f" and 0 < images.max() <= 1:
        raise ValueError(
            "Images must be pixels in 0..255: models here scale them by themselves. "
            f"Received: {images.min()}..{images.max()}"
        )
    return images


def image_shape(images: tf.data.Dataset | np.ndarray) -> tuple[int, ...]:
    """(height, width, c) of the images of batches or of an array."""
    if isinstance(images, tf.data.Dataset):
        return tuple(images.element_spec[0].shape[1:])
    return tuple(images.shape[1:])
