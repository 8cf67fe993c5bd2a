"""Random changes of training images, each a function of the run's seed and the step.

The changes are Keras' own layers, or made of them. Their seeds are ours: Keras'
generators count calls, so a parallel pipeline would draw in another order every time,
and a resumed run would start over.
"""

import keras
import tensorflow as tf
from keras import layers

from keras_vit.training.augmentation.rand_augment import RandAugment
from keras_vit.training.recipes import TrainingRecipe

# Pixels and targets, whatever precision the model is trained in: MixUp fails in half.
_PRECISE = {"dtype": "float32"}


class StepSeed(keras.random.SeedGenerator):
    """Seeds that follow from a number of one's own and the step, in order of drawing.

    Args:
        number: Told apart from other generators by it.
    """

    def __init__(self, number: int):
        super().__init__(seed=number)
        self._number = number
        self._step = None
        self._drawn = 0

    def start(self, step: tf.Tensor) -> None:
        """Begins a step: int64 `()`."""
        self._step, self._drawn = step, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """The next seed, int64 `(2,)`."""
        self._drawn += 1
        # A thousand draws a layer and a hundred layers a run never meet.
        number = (self._number * 1_000 + self._drawn) % (2**31 - 2)
        return tf.stack([tf.constant(number, tf.int64), tf.cast(self._step, tf.int64)])


class Augmentation:
    """What a recipe does to a batch of training images.

    Args:
        recipe: Says what is done, and how strongly.
        num_classes: Number of classes.
        seed: The run's.
        worker: Index of the worker, whose images differ from those of the others.
    """

    def __init__(
        self, recipe: TrainingRecipe, num_classes: int, seed: int, worker: int = 0
    ):
        self.num_classes = num_classes
        self._images = _image_layers(recipe)
        self._mixers = _mixers(recipe)
        first = (seed * 1_000 + worker) * 100
        self._seeds = [StepSeed(first)]  # this one chooses between mixers
        for layer in (*self._images, *self._mixers):
            for part in layer._flatten_layers():
                if hasattr(part, "generator"):
                    part.generator = StepSeed(first + len(self._seeds))
                    self._seeds.append(part.generator)

    def __call__(
        self, step: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One training batch.

        Args:
            step: Number of the step, int64 `()`.
            images: Pixels in 0..255, uint8 `(b, height, width, c)`.
            labels: Integers `(b,)`.

        Returns:
            Float32 images and targets `(b, num_classes)` that sum to 1.
        """
        for seed in self._seeds:
            seed.start(step)
        images = tf.cast(images, tf.float32)
        targets = tf.one_hot(labels, self.num_classes)
        for layer in self._images:
            images = layer(images, training=True)
        if not self._mixers:
            return images, targets
        mixed = [
            layer({"images": images, "labels": targets}, training=True)
            for layer in self._mixers
        ]
        if len(mixed) == 1:
            return mixed[0]["images"], mixed[0]["labels"]
        first = tf.random.stateless_uniform((), self._seeds[0].next()) < 0.5
        return tuple(
            tf.where(first, *(it[part] for it in mixed))
            for part in ("images", "labels")
        )


def _image_layers(recipe: TrainingRecipe) -> list[layers.Layer]:
    found = []
    if recipe.translation:
        # Whole pixels: interpolation blurs small images, and the test's are sharp.
        part = recipe.translation
        found.append(
            layers.RandomTranslation(
                part, part, fill_mode="constant", interpolation="nearest", **_PRECISE
            )
        )
    if recipe.flip:
        found.append(layers.RandomFlip("horizontal", **_PRECISE))
    if recipe.rand_augment:
        found.append(RandAugment(recipe.rand_augment, **_PRECISE))
    if recipe.random_erasing:
        rate = recipe.random_erasing
        found.append(layers.RandomErasing(factor=(rate, rate), **_PRECISE))
    return found


def _mixers(recipe: TrainingRecipe) -> list[layers.Layer]:
    found = []
    if recipe.mixup:
        found.append(layers.MixUp(recipe.mixup, **_PRECISE))
    if recipe.cutmix:
        # Of one number Keras makes a range, from 0 on, and draws alpha from it.
        alpha = recipe.cutmix
        found.append(layers.CutMix((alpha, alpha), **_PRECISE))
    return found
