"""Batches of training images, in an order that follows from the seed and the step alone.

Training can therefore start at any step, in any process, without anything of the
pipeline having been stored.
"""

import dataclasses
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

# Calls of a function at once, and batches that are made ahead of their steps.
PARALLEL = max(os.cpu_count() or 1, 2)
AHEAD = 4
# Examples of which not even the names are in memory are shuffled in a window of this
# many: those of TensorFlow Datasets, where decoded images are too many to keep.
SHUFFLE_WINDOW = 10_000


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples that are not decoded yet.

    Attributes:
        examples: Pairs of whatever `ImageSource.decode` takes and an int32 label.
        count: Number of examples.
        arrays: The same as two arrays, where they are in memory, or `None`.
    """

    examples: tf.data.Dataset
    count: int
    arrays: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingImages:
    """Training images that can be gone through from any step on.

    Attributes:
        split: Where they come from.
        prepare: One raw example and its label -> uint8 `(height, width, c)` and label.
        batch_size: Images a step, over all workers; of more than there are, all.
        seed: Seed of their order.
        keep: Whether decoded images are kept in memory.
        passes: How often an epoch goes through all of them.
    """

    split: Split
    prepare: Callable
    batch_size: int
    seed: int
    keep: bool
    passes: int = 1

    def __post_init__(self):
        size = min(self.batch_size, self.split.count)
        object.__setattr__(self, "batch_size", size)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch: a last, smaller one would make XLA compile anew."""
        return self.split.count * self.passes // self.batch_size

    @property
    def batches(self) -> tf.data.Dataset:
        """Batches of images and labels; the next epoch whenever they are gone through."""
        number = itertools.count()
        batches = self.epochs(lambda: next(number) * self.steps_per_epoch)
        length = tf.data.experimental.assert_cardinality(self.steps_per_epoch)
        whole = batches.map(lambda step, images, labels: (images, labels))
        return made_ahead(whole.apply(length))

    def epochs(
        self,
        done: Callable[[], int],
        repeats: int = 1,
        worker: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """The batches of one epoch, or of what is left of it, whenever gone through.

        Args:
            done: Gives the number of steps done so far, when a pass begins.
            repeats: How often an image comes in a row; an epoch stays as long, so it
                shows so many images fewer. Source:
                https://arxiv.org/abs/1902.05509, section 3.2 (repeated augmentation).
            worker: (index, count): of each batch every `count`-th image from the
                `index`-th on.

        Returns:
            Of each step its number, int64 `()`; images, uint8 `(b, height, width, c)`;
            and labels, int32 `(b,)`.
        """
        in_memory = self.keep or self.split.arrays is not None
        batches_of = self._gather if in_memory else self._stream
        share = slice(worker[0], None, worker[1])
        examples = self.split.examples
        if self.keep:
            examples = examples.map(self.prepare)
        parts = (
            tf.TensorSpec((len(range(self.batch_size)[share]), *spec.shape), spec.dtype)
            for spec in examples.element_spec
        )
        batches = _generate(
            lambda: batches_of(done(), repeats, share),
            (tf.TensorSpec((), tf.int64), *parts),
        )
        if self.keep:
            return batches
        return batches.map(
            self._decode, num_parallel_calls=PARALLEL, deterministic=True
        )

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        decoded = self.split.examples.map(self.prepare, num_parallel_calls=PARALLEL)
        parts = list(decoded.batch(1024).as_numpy_iterator())
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        return images, labels

    def _gather(self, first, repeats, share) -> Iterator[tuple]:
        """Batches of what is in memory: decoded images, or the paths of a folder."""
        images, labels = self._arrays if self.keep else self.split.arrays
        epoch, begun = divmod(first, self.steps_per_epoch)
        order = np.concatenate(
            [
                epoch_order(self.split.count, self.seed, number, repeats)
                for number in range(epoch * self.passes, (epoch + 1) * self.passes)
            ]
        )
        starts = range(0, len(order), self.batch_size)
        for step, place in enumerate(starts[begun : self.steps_per_epoch], first):
            rows = order[place : place + self.batch_size][share]
            yield step, images[rows], labels[rows]

    def _stream(self, first, repeats, share) -> Iterator[tuple]:
        """Batches of examples that pass by, shuffled in a window."""
        epoch, begun = divmod(first, self.steps_per_epoch)
        passing = self._passing(epoch, repeats).skip(begun)
        for step, (raw, labels) in enumerate(passing.as_numpy_iterator(), first):
            yield step, raw[share], labels[share]

    def _passing(self, epoch: int, repeats: int) -> tf.data.Dataset:
        examples = self.split.examples.shuffle(
            SHUFFLE_WINDOW, seed=self.seed * 1_000_003 + epoch
        )
        examples = examples.repeat(self.passes)
        if repeats > 1:
            examples = examples.flat_map(
                lambda *example: tf.data.Dataset.from_tensors(example).repeat(repeats)
            )
        whole = examples.batch(self.batch_size, drop_remainder=True)
        return whole.take(self.steps_per_epoch)

    def _decode(self, step, raw, labels):
        images = tf.map_fn(
            lambda one: self.prepare(one, tf.constant(0))[0],
            raw,
            fn_output_signature=self._image_spec,
        )
        return step, images, labels

    @functools.cached_property
    def _image_spec(self) -> tf.TensorSpec:
        return self.split.examples.map(self.prepare).element_spec[0]


def made_ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, made while the steps before them run.

    How many at once is fixed. The thread with which tf.data would tune that wakes up
    after 0.01 seconds, then after twice as long each time, and keeps a pass from ending
    until it does: one of 3.1 seconds lasts 5.1, one of 5.2 lasts 10.2.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(AHEAD).with_options(options)


def epoch_order(count: int, seed: int, epoch: int, repeats: int = 1) -> np.ndarray:
    """Rows of an epoch's images in their order, each `repeats` times in a row.

    An epoch stays `count` rows long.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.repeat(order, repeats)[:count]


def _generate(generator: Callable[[], Iterator], signature) -> tf.data.Dataset:
    # TensorFlow keeps a generator for ever, and what it refers to: images, a model. So
    # the data set keeps it, and TensorFlow has a weak reference.
    weak = weakref.ref(generator)
    dataset = tf.data.Dataset.from_generator(
        lambda: weak()(), output_signature=signature
    )
    dataset.generator = generator
    return dataset
