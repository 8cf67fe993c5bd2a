"""Examples that are not decoded yet -> resized batches, of three splits."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import tensorflow as tf
from keras_vit_device.pixels import fit_array

from keras_vit.config import Preprocessing, check_choice
from keras_vit.data.batches import (
    PARALLEL,
    SHUFFLE_WINDOW,
    Split,
    TrainingImages,
    made_ahead,
)

# Resized images are kept in memory up to this many bytes, so each is decoded once.
CACHE_BYTES = 2**30
# Images to look at, in `ImageData.sample` and `ImageData.validation_sample`.
SAMPLE = 64
# What figures may be of.
PARTS = ("train", "validation", "test", "all")


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Three data sets of batches, as `model.fit` takes them.

    Attributes:
        name: What the user called it.
        class_names: Name of each label.
        train: Shuffled anew each time that it is gone through. Batches of images, uint8
            `(b, height, width, c)` in 0..255, and of labels, int32 `(b,)`.
        validation: The same, in fixed order.
        test: The same, in fixed order; or what `reported` says.
        training_images: What `train` goes through, from any step on.
        sample: A batch of up to 64 training images, spread evenly over them; the same
            whatever the seed and the epoch.
        validation_sample: The same of the validation images.
        counts: Number of images in each of the first three.
        source: Where all of it comes from.
        reported: What `test` holds: `"test"`, unless `load` was asked for another.
    """

    name: str
    class_names: tuple[str, ...]
    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    sample: tf.data.Dataset
    validation_sample: tf.data.Dataset
    training_images: TrainingImages
    counts: dict[str, int]
    source: "ImageSource"
    reported: str = "test"

    def with_passes(self, passes: int) -> Self:
        """The same, `training_images` so often gone through in an epoch."""
        changed = dataclasses.replace(self.training_images, passes=passes)
        return dataclasses.replace(self, training_images=changed)


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
        usual_shape: (height, width, channels) of most images, for a model of them, or
            `None`.
        shape_note: How many images are of it, in words; empty if all.
        notes: What was guessed of a folder and what was left out, a line each.
        is_folder: Whether it is one, and examples are paths.
        cut: Splits that the data set does not have, so that they were held out.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    splits: dict[str, Split]
    decode: Callable[[tf.Tensor], tf.Tensor]
    skipped: tuple[pathlib.Path, ...] = ()
    usual_shape: tuple[int, int, int] | None = None
    shape_note: str = ""
    notes: tuple[str, ...] = ()
    is_folder: bool = False
    cut: tuple[str, ...] = ()

    def load(
        self,
        preprocessing: Preprocessing | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
        reported: str = "test",
    ) -> ImageData:
        """Decodes, resizes and batches; arguments and errors as in `load_data`.

        Args:
            preprocessing: As there.
            batch_size: As there.
            seed: As there.
            reported: What takes the place of the test images, for figures on other
                ones: a split, or `"all"`.
        """
        preprocessing = preprocessing or self._own_preprocessing()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")
        self._check_channels(preprocessing.channels)

        def prepare(raw, label):
            return _fit_pixels(self.decode(raw), preprocessing), label

        image_bytes = math.prod(preprocessing.image_size) * preprocessing.channels

        def fits(split: Split) -> bool:
            return image_bytes * split.count <= CACHE_BYTES

        def held_out(name: str) -> tf.data.Dataset:
            split = self.part(name)
            examples = split.examples.map(prepare, num_parallel_calls=PARALLEL)
            if fits(split):
                examples = examples.cache()
            return made_ahead(examples.batch(batch_size))

        def sample(name: str) -> tf.data.Dataset:
            return _spread(self.splits[name]).map(prepare).batch(SAMPLE)

        train = self.splits["train"]
        training = TrainingImages(train, prepare, batch_size, seed, fits(train))
        return ImageData(
            self.name,
            self.class_names,
            train=training.batches,
            validation=held_out("validation"),
            test=held_out(reported),
            sample=sample("train"),
            validation_sample=sample("validation"),
            training_images=training,
            counts={name: split.count for name, split in self.splits.items()}
            | {"test": self.part(reported).count},
            source=self,
            reported=reported,
        )

    def part(self, name: str) -> Split:
        """A split, or the three one after the other as `"all"`."""
        check_choice("split", name, PARTS)
        if name != "all":
            return self.splits[name]
        first, *others = (it for it in self.splits.values() if it.count)
        examples = functools.reduce(
            tf.data.Dataset.concatenate, (it.examples for it in others), first.examples
        )
        return Split(examples, sum(it.count for it in self.splits.values()))

    def with_classes_in(self, order: Sequence[int]) -> Self:
        """The same with its classes in another order, which the labels follow.

        Args:
            order: Today's label of each class, in the order that is wanted.
        """
        moved = np.argsort(order).astype("int32")  # the new label of each of today's

        def relabelled(split: Split) -> Split:
            if split.arrays is not None:
                examples, labels = split.arrays
                return make_split(examples, moved[labels])
            examples = split.examples.map(
                lambda raw, label: (raw, tf.gather(moved, label))
            )
            return Split(examples, split.count)

        return dataclasses.replace(
            self,
            class_names=tuple(self.class_names[label] for label in order),
            splits={name: relabelled(split) for name, split in self.splits.items()},
        )

    def paths(self, name: str) -> list[bytes]:
        """Files of a folder's split."""
        return self.splits[name].arrays[0].tolist()

    def are_grey(self) -> bool:
        """Whether a few images, spread over all, have three equal channels."""
        pixels = _spread(self.splits["train"]).map(lambda raw, _: self.decode(raw))
        images = pixels.take(SAMPLE // 4).as_numpy_iterator()
        return all((image == image[..., :1]).all() for image in images)

    def _check_channels(self, channels: int) -> None:
        given = self.image_shape[-1] if self.image_shape else 3
        if given != channels and not {given, channels} <= {1, 3}:
            raise ValueError(
                f"The images of {self.name!r} have {given} channels, which do not make "
                f"those of the model. Received: channels={channels}"
            )

    def _own_preprocessing(self) -> Preprocessing:
        if self.image_shape is None:
            raise ValueError(
                f"The images of {self.name!r} differ in size, so a size is needed. "
                "Received: preprocessing=None"
            )
        height, width, channels = self.image_shape
        return Preprocessing(image_size=(height, width), channels=channels)


def make_split(examples: Sequence, labels: Sequence[int]) -> Split:
    """A split of examples and labels that are all in memory."""
    arrays = np.asarray(examples), np.asarray(labels, "int32")
    return Split(tf.data.Dataset.from_tensor_slices(arrays), len(labels), arrays)


def _spread(split: Split) -> tf.data.Dataset:
    """`SAMPLE` examples at equal distances, not decoded yet.

    Not the first ones: files of a folder come class by class. From a disk only the
    first examples are read, which data sets there have in a random order.
    """
    count = min(split.count, SHUFFLE_WINDOW) if split.arrays is None else split.count
    examples, step = split.examples.take(count), count // SAMPLE
    if step >= 10:  # the end, which has none, is less than a tenth
        return examples.shard(step, 0).take(SAMPLE)
    rows = spread_rows(count, SAMPLE)
    chosen = examples.enumerate().filter(lambda row, _: tf.reduce_any(row == rows))
    return chosen.map(lambda _, example: example)


def spread_rows(count: int, wanted: int) -> np.ndarray:
    """At most as many rows as are wanted, of `count`, at equal distances."""
    found = min(count, wanted)
    return np.arange(found) * count // found


def _fit_pixels(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """One image of any size -> uint8 `(height, width, c)`, as `Preprocessing` says."""
    shape = (*preprocessing.image_size, preprocessing.channels)
    if tuple(pixels.shape) == shape and preprocessing.crop == 1.0:
        return pixels
    rule = preprocessing.rule
    fitted = tf.numpy_function(
        lambda array: fit_array(array, rule), [pixels], tf.uint8, stateful=False
    )
    return tf.ensure_shape(fitted, shape)
