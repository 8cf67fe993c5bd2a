"""Examples that are not decoded yet -> resized, shuffled batches."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_vit.config import Preprocessing
from keras_vit_pixels import fit_array

# Resized images are kept in memory up to this many bytes, so each is decoded once.
CACHE_BYTES = 2**30
# Beyond it, examples that come from a disk are shuffled in a window of this many.
SHUFFLE_WINDOW = 10_000
# Training images to look at, in `ImageData.sample`.
SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples that are not decoded yet.

    Attributes:
        examples: Pairs of whatever `ImageSource.decode` takes and an int32 label.
        count: Number of examples.
        in_memory: Whether they are, so that shuffling all of them costs nothing.
    """

    examples: tf.data.Dataset
    count: int
    in_memory: bool = False


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
        sample: A batch of up to 64 training images, spread evenly over them; the same
            whatever the seed and the epoch.
        counts: Number of images in each of the first three.
    """

    name: str
    class_names: tuple[str, ...]
    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    sample: tf.data.Dataset
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
        self._check_channels(preprocessing.channels)

        def prepare(raw, label):
            return fit_pixels(self.decode(raw), preprocessing), label

        def batches(name: str) -> tf.data.Dataset:
            split, order = self.splits[name], seed if name == "train" else None
            image_bytes = math.prod(preprocessing.image_size) * preprocessing.channels
            if image_bytes * split.count > CACHE_BYTES:
                return _streamed_batches(split, prepare, batch_size, order)
            examples = split.examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            return _kept_batches(examples, split.count, batch_size, order)

        data = {name: batches(name) for name in self.splits}
        data["sample"] = _spread(self.splits["train"]).map(prepare).batch(SAMPLE)
        counts = {name: split.count for name, split in self.splits.items()}
        return ImageData(self.name, self.class_names, counts=counts, **data)

    def _check_channels(self, channels: int) -> None:
        given = self.image_shape[-1] if self.image_shape else 3
        if given != channels and not {given, channels} <= {1, 3}:
            raise ValueError(
                f"The images of {self.name!r} have {given} channels, which do not make "
                f"those of the model. Received: channels={channels}"
            )

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
    return Split(
        tf.data.Dataset.from_tensor_slices((examples, labels)),
        len(labels),
        in_memory=True,
    )


def _spread(split: Split) -> tf.data.Dataset:
    """`SAMPLE` examples at equal distances, not decoded yet.

    Not the first ones: files of a folder come class by class. From a disk only the
    first examples are read, which data sets there have in a random order.
    """
    count = split.count if split.in_memory else min(split.count, SHUFFLE_WINDOW)
    step = max(count // SAMPLE, 1)
    return split.examples.take(count).shard(step, 0).take(SAMPLE)


def _kept_batches(examples, count, batch_size, shuffle_seed):
    """Batches of examples that are decoded in the first pass and kept in memory.

    The order is a function of the seed and the number of the pass alone. (That of
    `Dataset.shuffle` also follows from TensorFlow's global seed.)
    """
    kept = []
    passes = itertools.count()
    whole = _whole_batches_only(count, batch_size, shuffle_seed)
    end = count - count % batch_size if whole else count

    def batches():
        if not kept:
            parts = list(examples.batch(1024).as_numpy_iterator())
            kept.extend(np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.arange(count)
        if shuffle_seed is not None:
            rng = np.random.default_rng((shuffle_seed, next(passes)))
            order = rng.permutation(count)
        for start in range(0, end, batch_size):
            rows = order[start : min(start + batch_size, end)]
            yield tuple(column[rows] for column in kept)

    signature = tuple(
        tf.TensorSpec((batch_size if whole else None, *spec.shape), spec.dtype)
        for spec in examples.element_spec
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    length = tf.data.experimental.assert_cardinality(-(-end // batch_size))
    return dataset.apply(length).prefetch(tf.data.AUTOTUNE)


def _streamed_batches(split, prepare, batch_size, shuffle_seed):
    """Batches of examples that are decoded anew in every pass."""
    examples = split.examples
    if shuffle_seed is not None:
        # Files of a folder come class by class: only shuffling all of them mixes.
        window = split.count if split.in_memory else SHUFFLE_WINDOW
        examples = examples.shuffle(window, seed=shuffle_seed)
    examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    whole = _whole_batches_only(split.count, batch_size, shuffle_seed)
    return examples.batch(batch_size, drop_remainder=whole).prefetch(tf.data.AUTOTUNE)


def _whole_batches_only(count, batch_size, shuffle_seed) -> bool:
    # A last, smaller batch would make XLA compile the training step twice.
    return shuffle_seed is not None and count >= batch_size


def fit_pixels(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """One image of any size -> uint8 `(height, width, c)`, as `Preprocessing` says."""
    shape = (*preprocessing.image_size, preprocessing.channels)
    if tuple(pixels.shape) == shape and preprocessing.crop == 1.0:
        return pixels
    rule = preprocessing.rule
    fitted = tf.numpy_function(
        lambda array: fit_array(array, rule), [pixels], tf.uint8, stateful=False
    )
    return tf.ensure_shape(fitted, shape)
