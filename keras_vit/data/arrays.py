"""Images that a program holds already: NumPy arrays, and data sets of tf.data."""

import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras_vit_device.pixels import check_pixels

from keras_vit.data.batches import Split
from keras_vit.data.pipeline import ImageSource, make_split

# The part of each class that is held out where a data set does not say.
HELD_OUT = {"validation": 0.1, "test": 0.2}
# Examples of which the order is compared in two passes.
_COMPARED = 100


def from_arrays(
    name: str,
    class_names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    rows: dict[str, np.ndarray] | None = None,
) -> ImageSource:
    """A source from arrays in memory.

    Args:
        name: What to call it.
        class_names: Name of each label.
        images: Uint8 array `(count, height, width, c)`, pixels in 0..255.
        labels: Integers `(count,)`.
        rows: Indices of the examples of `"train"`, `"validation"` and `"test"`; if
            `None`, a tenth and a fifth of each class are held out, chosen by a hash of
            the image, so that equal images go together.

    Raises:
        ValueError: If images are no pixels in 0..255, as those that are scaled to 0..1,
            labels name no class, or a class has too few images to hold some out.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check_pixels(images)
    if images.ndim != 4 or labels.shape != (len(images),):
        raise ValueError(
            "Images must be (count, height, width, channels), with one label each. "
            f"Received: images {images.shape}, labels {labels.shape}"
        )
    if rows is None:
        rows = hold_out(
            [hashlib.sha1(it.tobytes()).hexdigest() for it in images], labels
        )
    for chosen in rows.values():
        _check_labels(labels[chosen], len(class_names))
    splits = {
        split: make_split(_whole(images[chosen]), labels[chosen])
        for split, chosen in rows.items()
    }
    return ImageSource(name, tuple(class_names), images.shape[1:], splits, tf.identity)


def _whole(images: np.ndarray) -> np.ndarray:
    """The nearest whole pixels."""
    return images if images.dtype == np.uint8 else np.round(images).astype("uint8")


def from_datasets(
    name: str,
    class_names: Sequence[str],
    *,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    test: tf.data.Dataset,
) -> ImageSource:
    """A source from data sets of tf.data, such as `image_dataset_from_directory` gives.

    Training images are shuffled here, in a window, so `train` may be in any order. A
    run can only be gone on with as it was if that order is the same each time.

    Args:
        name: What to call it.
        class_names: Name of each label.
        train: (images, labels), in batches or one by one; pixels in 0..255 of any type,
            labels as integers or one-hot.
        validation: The same, in the same order at each pass.
        test: The same.

    Raises:
        ValueError: If one is none of these, is empty or endless, or pixels are scaled
            already.
    """
    given = {"train": train, "validation": validation, "test": test}
    splits = {
        split: _split_of(dataset, split, len(class_names))
        for split, dataset in given.items()
    }
    shapes = {tuple(it.examples.element_spec[0].shape) for it in splits.values()}
    shape = shapes.pop() if len(shapes) == 1 else (None,)
    known = shape if None not in shape else None
    return ImageSource(name, tuple(class_names), known, splits, tf.identity)


def _split_of(dataset: tf.data.Dataset, name: str, num_classes: int) -> Split:
    """A data set as single examples: uint8 `(height, width, c)` and an int32 label."""
    examples = _one_by_one(dataset, name)
    first = list(examples.take(_COMPARED).as_numpy_iterator())
    if not first:
        raise ValueError(f"{name} is empty.")
    _check_examples(first, name, num_classes)
    if name != "train":
        again = examples.take(_COMPARED).as_numpy_iterator()
        pairs = zip(first, again, strict=True)
        if not all(np.array_equal(a, b) for (a, _), (b, _) in pairs):
            raise ValueError(
                f"{name} gives its images in another order at each pass: leave out its "
                "shuffling."
            )
    one_hot = np.ndim(first[0][1]) > 0

    def plain(image, label):
        label = tf.argmax(label) if one_hot else label
        if image.dtype != tf.uint8:
            image = tf.cast(tf.round(image), tf.uint8)
        return image, tf.cast(label, tf.int32)

    count = int(examples.cardinality())
    if count < 0:  # tf.data can't tell without going through them
        count = sum(1 for _ in examples)
    return Split(examples.map(plain), count)


def _one_by_one(dataset: tf.data.Dataset, name: str) -> tf.data.Dataset:
    """The same without batches, if it is of images and labels and has an end."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"{name} must give (images, labels). Received: {spec}")
    examples = dataset.unbatch() if spec[0].shape.rank == 4 else dataset
    if examples.element_spec[0].shape.rank != 3:
        raise ValueError(
            f"{name} must give images (height, width, channels), in batches or one by "
            f"one. Received: {spec[0].shape}"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name} has no end: leave out repeat().")
    return examples


def _check_examples(
    examples: list[tuple[np.ndarray, np.ndarray]], name: str, num_classes: int
) -> None:
    for image, label in examples:
        check_pixels(image)
        if np.ndim(label) and sorted(label) != [*[0] * (num_classes - 1), 1]:
            raise ValueError(
                f"{name} must have integers or one-hot rows of {num_classes} as labels, "
                f"and images of rank 3. Received: a label {label.shape} of an image "
                f"{image.shape}"
            )
        _check_labels(np.argmax(label) if np.ndim(label) else label, num_classes)


def _check_labels(labels: np.ndarray | int, num_classes: int) -> None:
    labels = np.asarray(labels)
    if labels.size == 0:
        return
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < (
        num_classes
    ):
        raise ValueError(
            f"Labels must be integers from 0 to {num_classes - 1}, one for each of the "
            f"{num_classes} classes. Received: {labels.dtype}, "
            f"{labels.min()}..{labels.max()}"
        )


def hold_out(
    keys: Sequence[str],
    labels: Sequence[int | str],
    parts: dict[str, float] | None = None,
) -> dict[str, np.ndarray]:
    """Holds out about the same part of each class; the rest is `"train"`.

    An example's place follows from a hash of its key, so neither a seed nor the order
    of files nor added files move it; but each split gets one of every class, which
    moves single examples of classes with a handful.

    Args:
        keys: A name of each example.
        labels: Its class.
        parts: Part of the examples for each split that is held out; `HELD_OUT` if
            `None`.

    Returns:
        Sorted indices of the examples of each split.

    Raises:
        ValueError: If a class has not one image for each split.
    """
    parts = HELD_OUT if parts is None else parts
    labels = np.asarray(labels)
    places = np.array([_place(key) for key in keys])
    splits = (*parts, "train")
    limits = np.cumsum(list(parts.values()))
    rows = {split: [] for split in splits}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < len(splits):
            raise ValueError(
                f"Every class needs at least {len(splits)} images, one each for "
                f"{', '.join(splits)}. Received: {len(members)} of class {label}"
            )
        members = members[np.argsort(places[members], kind="stable")]
        cuts = np.searchsorted(places[members], limits)
        for index in range(len(cuts)):  # at least one before each cut, and after all
            least = 1 + (cuts[index - 1] if index else 0)
            most = len(members) - len(cuts) + index
            cuts[index] = np.clip(cuts[index], least, most)
        for split, chosen in zip(splits, np.split(members, cuts), strict=True):
            rows[split].append(chosen)
    return {split: np.sort(np.concatenate(found)) for split, found in rows.items()}


def _place(key: str) -> float:
    """A number in [0, 1) that looks random but is always the same for this key."""
    digest = hashlib.sha1(key.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
