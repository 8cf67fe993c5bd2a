"""Which images serve which purpose: calibration, choice, report."""

import dataclasses

import numpy as np
import tensorflow as tf
from keras_vit_device.pixels import check_pixels

from keras_vit.data.pipeline import ImageData, spread_rows
from keras_vit_export.quantization import calibration

# Images on which ranges and scales are compared.
_COMPARED = 32
# In this order; an array has no labels to report by.
_PURPOSES = ("calibration", "choice", "report")

Images = ImageData | tf.data.Dataset | np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images for each purpose; `None` where there are none.

    Attributes:
        calibration: Uint8 `(count, height, width, c)`: ranges are measured on them.
        compared: The same: ranges, roundings and scales are chosen on them by SNR,
            which needs no labels.
        choice: Batches of images and labels: recipes and protected layers are chosen on
            them by top-1.
        report: Batches of images and labels: what is reported is measured on them.
        counts: `{"calibration": {"split": "train", "images": 64}, ...}`.
    """

    calibration: np.ndarray | None
    compared: np.ndarray | None
    choice: tf.data.Dataset | None
    report: tf.data.Dataset | None
    counts: dict[str, dict]


def find_splits(images: Images) -> Splits:
    """What `export` was given, by purpose.

    Images to calibrate and to compare on are spread over all: files of a folder come
    class by class.

    Raises:
        ValueError: If it is none of the kinds that `export` takes.
    """
    if images is None:
        return Splits(None, None, None, None, {})
    if isinstance(images, ImageData):
        rows, _ = _looked_through(images.sample)
        near, _ = _looked_through(images.validation_sample)
        choice, report = images.validation, images.test
        names = ("train", "validation", images.reported)
        counts = (len(rows), images.counts["validation"], images.counts["test"])
    elif isinstance(images, tf.data.Dataset):
        _check_batches(images)
        rows, count = _looked_through(images)
        near, choice, report = rows, images, images
        names, counts = ("given",) * 3, (len(rows), count, count)
    else:
        rows = near = _pixels(_spread(_array(images), calibration.IMAGES))
        choice = report = None
        names, counts = ("given",) * 2, (len(rows), min(len(rows), _COMPARED))
    named = {
        purpose: {"split": name, "images": count}
        for purpose, name, count in zip(_PURPOSES, names, counts, strict=False)
    }
    return Splits(rows, _spread(near, _COMPARED), choice, report, named)


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


def _looked_through(batches: tf.data.Dataset) -> tuple[np.ndarray, int]:
    images, _, count = look_through(batches, calibration.IMAGES)
    return _pixels(images), count


def look_through(
    batches: tf.data.Dataset, wanted: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Images and labels at equal distances of each other, and how many there are in all.

    In one pass, that begins with every image and takes every other one as soon as there
    are twice as many as wanted.
    """
    kept, distance, count = [], 1, 0
    for images, labels in batches.as_numpy_iterator():
        first = -count % distance
        pairs = zip(images[first::distance], labels[first::distance], strict=True)
        kept += [(image.copy(), label) for image, label in pairs]
        count += len(images)
        while len(kept) > 2 * wanted:
            kept, distance = kept[::2], 2 * distance
    if not kept:
        raise ValueError("The data set is empty.")
    images, labels = (np.stack(column) for column in zip(*kept, strict=True))
    return _spread(images, wanted), _spread(labels, wanted), count


def _spread(images: np.ndarray, wanted: int) -> np.ndarray:
    return images[spread_rows(len(images), wanted)]


def _pixels(images: np.ndarray) -> np.ndarray:
    """The images, if they are pixels: other numbers crash the quantizer."""
    check_pixels(images)
    return images


def image_shape(images: tf.data.Dataset | np.ndarray) -> tuple[int, ...]:
    """(height, width, c) of the images of batches or of an array."""
    if isinstance(images, tf.data.Dataset):
        return tuple(images.element_spec[0].shape[1:])
    return tuple(images.shape[1:])
