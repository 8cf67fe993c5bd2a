"""Examples that are not decoded yet -> resized, shuffled batches."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_vit.config import Preprocessing

# Resized images are kept in memory up to this many bytes, so each is decoded once.
CACHE_BYTES = 2**30
# Beyond it, encoded examples are shuffled within a window of this many.
SHUFFLE_WINDOW = 10_000


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples that are not decoded yet.

    Attributes:
        examples: Pairs of whatever `ImageSource.decode` takes and an int32 label.
        count: Number of examples.
    """

    examples: tf.data.Dataset
    count: int


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Three data sets of batches, as `model.fit` takes them.

    Attributes:
        name: What the user called it.
        class_names: Name of each label.
        train: Shuffled anew each epoch. Batches of images, uint8 `(b, height, width,
            c)` in 0..255, and of labels, int32 `(b,)`.
        validation: The same, in fixed order.
        test: The same, in fixed order.
        counts: Number of images in each of the three.
    """

    name: str
    class_names: tuple[str, ...]
    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """A data set that was found: its classes and splits, nothing decoded.

    Attributes:
        name: What the user called it.
        class_names: Name of each label.
        image_shape: (height, width, channels) shared by all images, or `None`.
        splits: `"train"`, `"validation"` and `"test"`.
        decode: One raw example -> uint8 tensor `(height, width, c)`.
        skipped: Files that are no readable image and were left out.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    splits: dict[str, Split]
    decode: Callable[[tf.Tensor], tf.Tensor]
    skipped: tuple[pathlib.Path, ...] = ()

    def load(
        self,
        preprocessing: Preprocessing | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
    ) -> ImageData:
        """Decodes, resizes and batches; arguments and errors as in `load_data`."""
        preprocessing = preprocessing or self._unchanged()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")

        def prepare(raw, label):
            return fit_image(self.decode(raw), preprocessing), label

        height, width = preprocessing.image_size
        image_bytes = height * width * preprocessing.channels
        batches = {
            name: _batches(
                split,
                prepare,
                image_bytes * split.count <= CACHE_BYTES,
                batch_size,
                seed if name == "train" else None,
            )
            for name, split in self.splits.items()
        }
        counts = {name: split.count for name, split in self.splits.items()}
        return ImageData(self.name, self.class_names, counts=counts, **batches)

    def _unchanged(self) -> Preprocessing:
        if self.image_shape is None:
            raise ValueError(
                f"The images of {self.name!r} differ in size, so a size is needed. "
                "Received: preprocessing=None"
            )
        height, width, channels = self.image_shape
        return Preprocessing(image_size=(height, width), channels=channels)


def array_source(
    name: str,
    class_names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    rows: dict[str, np.ndarray],
) -> ImageSource:
    """A source from arrays in memory.

    Args:
        name: What to call it.
        class_names: Name of each label.
        images: Uint8 array `(count, height, width, c)`, pixels in 0..255.
        labels: Integers `(count,)`.
        rows: Indices of the examples of `"train"`, `"validation"` and `"test"`.
    """
    splits = {
        split: make_split(images[chosen], labels[chosen])
        for split, chosen in rows.items()
    }
    return ImageSource(name, tuple(class_names), images.shape[1:], splits, tf.identity)


def make_split(examples: Sequence, labels: Sequence[int]) -> Split:
    """A split of examples and labels that are all in memory."""
    labels = np.asarray(labels, "int32")
    return Split(tf.data.Dataset.from_tensor_slices((examples, labels)), len(labels))


def _batches(split, prepare, cached, batch_size, shuffle_seed):
    examples = split.examples
    if shuffle_seed is not None and not cached:
        examples = examples.shuffle(SHUFFLE_WINDOW, seed=shuffle_seed)
    examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    if cached:
        examples = examples.cache()
        if shuffle_seed is not None:
            examples = examples.shuffle(split.count, seed=shuffle_seed)
    # A last, smaller batch would make XLA compile the training step twice.
    whole = shuffle_seed is not None and split.count >= batch_size
    return examples.batch(batch_size, drop_remainder=whole).prefetch(tf.data.AUTOTUNE)


def fit_image(image: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """One image of any size -> uint8 `(height, width, c)`, as `Preprocessing` says.

    Args:
        image: Uint8 tensor of rank 3 with 1 or 3 channels.
        preprocessing: Size, channels and resize mode.

    Raises:
        ValueError: If the channels can't be made from those of the image.
    """
    channels = preprocessing.channels
    if (image.shape[-1], channels) == (1, 3):
        image = tf.image.grayscale_to_rgb(image)
    elif (image.shape[-1], channels) == (3, 1):
        image = tf.image.rgb_to_grayscale(image)
    elif image.shape[-1] != channels:
        raise ValueError(
            f"Images with {image.shape[-1]} channels do not fit a model with "
            f"{channels} channels."
        )
    height, width = preprocessing.image_size
    if image.shape[:2] == (height, width) and preprocessing.crop == 1.0:
        return image
    target = tf.constant([height, width], tf.float64)
    resized = target / preprocessing.crop
    if preprocessing.resize == "crop":
        sides = tf.cast(tf.shape(image)[:2], tf.float64)
        resized = sides * tf.reduce_max(resized / sides)
    resized = tf.maximum(tf.cast(tf.round(resized), tf.int32), [height, width])
    method = preprocessing.interpolation
    pixels = tf.image.resize(image, resized, method, antialias=method != "nearest")
    top, left = tf.unstack((resized - [height, width]) // 2)
    pixels = tf.image.crop_to_bounding_box(pixels, top, left, height, width)
    pixels = tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0.0, 255.0)
    return tf.ensure_shape(tf.cast(pixels, tf.uint8), (height, width, channels))
