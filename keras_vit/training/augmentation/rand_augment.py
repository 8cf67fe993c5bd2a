"""RandAugment in the magnitudes of its paper."""

import functools

import keras
import tensorflow as tf
from keras import layers


class RandAugment(layers.Layer):
    """Two random changes of shape or colour, the same two for all images of a batch.

    Keras has a layer of this name, which gives one factor to every change as it is: 0.9
    turns images by up to 324 degrees, shifts all of them the same way and never takes
    contrast from them; 0.1 leaves one bit of their colours. Here each change has its
    own range, of which every image draws its own part.

    It has the paper's changes but for solarize: Keras' draws its threshold from all
    values up to a highest one, so that a weak one turns an image into its negative.

    Args:
        strength: How far changes go, in 0..1: a tenth of the paper's magnitude.

    Input and output: float32 `(b, height, width, c)`, pixels in 0..255.

    Sources: https://arxiv.org/abs/1909.13719, section 3; the ranges, which it takes
        over, https://arxiv.org/abs/1805.09501, table 6.
    """

    def __init__(self, strength: float, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength
        self.generator = keras.random.SeedGenerator()
        # PIL multiplies brightness by 0.1..1.9; Keras adds to it.
        shear, shift, light = 0.3 * strength, 0.45 * strength, 0.45 * strength
        colour = 0.9 * strength
        outside = {"fill_mode": "constant", **kwargs}
        self.changes = [
            layers.Identity(**kwargs),
            layers.RandomShear(x_factor=shear, **outside),
            layers.RandomShear(y_factor=shear, **outside),
            layers.RandomTranslation(0.0, shift, **outside),
            layers.RandomTranslation(shift, 0.0, **outside),
            layers.RandomRotation(strength * 30 / 360, **outside),
            layers.RandomBrightness(light, **kwargs),
            layers.RandomContrast((colour, colour), **kwargs),
            layers.RandomColorDegeneration((-colour, colour), **kwargs),
            # Keras doubles it: 0.5 leaves an image as it is.
            layers.RandomSharpness((0.5 - colour / 2, 0.5 + colour / 2), **kwargs),
            layers.RandomPosterization((round(8 - 4 * strength), 9), **kwargs),
            layers.AutoContrast(**kwargs),
            layers.Equalization(**kwargs),  # by the histogram of the whole batch
        ]

    def build(self, input_shape) -> None:
        for change in self.changes:
            change.build(input_shape)

    def call(self, images, training=True):
        if not training:
            return images
        changes = self.changes
        if images.shape[-1] == 1:  # no colour to lose, and Keras 3.13 fails on them
            nothing, colours = changes[0], layers.RandomColorDegeneration
            changes = [nothing if isinstance(it, colours) else it for it in changes]
        for _ in range(2):
            chosen = keras.random.randint((), 0, len(changes), seed=self.generator)
            images = tf.switch_case(
                chosen,
                [functools.partial(it, images, training=True) for it in changes],
            )
        return images

    def get_config(self) -> dict:
        return super().get_config() | {"strength": self.strength}
