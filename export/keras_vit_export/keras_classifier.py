"""A Keras model as a classifier of images."""

import copy
import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras_vit_device import meaning
from keras_vit_device.meaning import Meaning
from keras_vit_device.pixel_scale import PixelScale, doubt
from keras_vit_device.pixels import (
    ImageFile,
    check_channels_last,
    check_pixels,
    read_image,
)
from keras_vit_device.tflite import labels

from keras_vit.config import check_class_names
from keras_vit.data.trained_on import read_records
from keras_vit.files import load_model
from keras_vit.layers import PixelScaling
from keras_vit.reuse import with_rgb_input
from keras_vit_export.keras_ends import Ends, loss_in_file, read_ends


class KerasClassifier:
    """A Keras model as a classifier of images.

    Args:
        model: From images `(b, height, width, c)` to logits or probabilities
            `(b, num_classes)`.
        input_scale: What the model takes in place of pixels in 0..255, as
            `PixelScale.parse` reads it; found in the model, if empty.
        logits: Whether the model gives logits though nothing in it says so.
        class_names: Name of each class; those in the model, if `()`.
        loss: Of a model loaded without it: what `keras_ends.loss_in_file` gave.

    Attributes:
        model: From pixels in 0..255, `input_scale` being part of it.
        scale: Where nothing tells what the model takes, that is taken: `"0..255"`.
        scale_source: How `scale` is known; empty if nothing tells.
        is_guess: Whether it is only what suits the model's first layers best.
        remarks: What else is to be said of it, a line each.
        meaning: Of the model's numbers.
        named: Whether the classes have names.
        trained_on: What its file says of its training (`keras_vit.data.trained_on`).

    Raises:
        ValueError: If the model does not take one image of a fixed size, or does not
            give one number for each of two or more classes that exclude each other, or
            `input_scale` or `class_names` do not fit it.
    """

    def __init__(
        self,
        model: keras.Model,
        input_scale: str = "",
        *,
        logits: bool = False,
        class_names: Sequence[str] = (),
        loss: Any = None,
    ):
        _check(model)
        ends = read_ends(model, loss)
        channels = model.input_shape[-1]
        self.scale, self.scale_source = ends.scale, ends.scale_source
        if input_scale:
            self.scale = PixelScale.parse(input_scale, channels)
            self.scale_source = "input_scale"
            _check_twice(ends, self.scale)
        self.is_guess = ends.is_guess and not input_scale
        self._bare = model
        self.scale = self.scale or PixelScale.parse("0..255", channels)
        self.model = (
            model if self.scale.name == "0..255" else _with_scaling(model, self.scale)
        )
        # Traced once for any number of images; `predict` traces anew for each.
        self._call = _trace(self.model)
        self.size_bytes = sum(
            int(np.prod(w.shape)) * np.dtype("float32").itemsize for w in model.weights
        )
        self.operations: dict[str, dict[str, int]] = {}
        self.trained_on: list[dict] = []
        self.preprocessing = ends.rule
        self.remarks: tuple[str, ...] = ()
        if channels not in (1, 3):
            self.remarks = (f"It takes {channels} channels: arrays, no image files.",)
        self.name_classes(tuple(class_names) or ends.class_names)
        self._find_meaning(ends.meaning, logits)

    def _find_meaning(self, said: Meaning | None, logits: bool) -> None:
        """From what is said, and from answers to patterns that have nothing in common."""
        rows = self.output(meaning.patterns(self.model.input_shape[1:]))
        self._example = rows[0]
        self.meaning = meaning.of_rows(rows)
        if said and self.meaning.kind != meaning.PROBABILITIES:
            self.meaning = said
        if logits:
            self.meaning = meaning.as_said(self.meaning)
        if self.meaning.kind != meaning.UNKNOWN:
            self.check_meaning()  # else labelled images may tell

    def with_model(self, model: keras.Model) -> Self:
        """The same of a model that computes the same: from pixels in 0..255."""
        copied = copy.copy(self)
        copied.model, copied._call = model, _trace(model)
        return copied

    def with_rgb_input(self) -> Self:
        """The same of a model of one channel, for colour images.

        Raises:
            ValueError: If the model has other channels.
        """
        copied = self.with_model(with_rgb_input(self.model))
        copied._bare = with_rgb_input(self._bare)
        copied.preprocessing = self.preprocessing | {"channels": 3}
        return copied

    def check_meaning(self) -> None:
        """Raises a `ValueError` if the model's numbers aren't those of a classifier."""
        if self.meaning.is_known:
            return
        if not np.isfinite(self._example).all():
            raise ValueError("The Keras model gives NaN or infinity.")
        raise ValueError(meaning.explain(self.meaning, self._example, self.class_names))

    def name_classes(self, names: Sequence[str]) -> None:
        """Gives the classes their names, each its own; numbers if `()`.

        Raises:
            ValueError: If there is not one name for each.
        """
        count = self.model.output_shape[-1]
        check_class_names(labels.told_apart(names), count)
        self.named = bool(names)
        self.class_names = labels.told_apart(names or [""] * count)

    @property
    def doubt(self) -> str:
        """What to say of a range of pixels that nothing tells for sure, else nothing."""
        return doubt(self.scale, self.scale_source, self.is_guess)

    @property
    def ends_in_probabilities(self) -> bool:
        """Whether the model gives probabilities; logits else."""
        return self.meaning.kind == meaning.PROBABILITIES

    def read(self, image: ImageFile) -> np.ndarray:
        """Decodes an image file and fits it to the model: uint8 `(height, width, c)`.

        Raises:
            UnreadableError: An OSError, as of `pixels.open_image`.
        """
        return read_image(image, self.preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images `(height, width, c)`, 0..255.

        Raises:
            ValueError: If images are scaled already, the model gives NaN or infinity,
                or it is unknown what its numbers mean.
        """
        images = np.asarray(images)
        check_pixels(images)
        output = self.output(images)
        if not np.isfinite(output).all():
            raise ValueError("The Keras model gives NaN or infinity.")
        self.check_meaning()
        return output if self.ends_in_probabilities else np.array(ops.softmax(output))

    def output_of(self, numbers: np.ndarray) -> np.ndarray:
        """What the model gives for images that are scaled already."""
        return self._bare_call(np.asarray(numbers, "float32")).numpy()

    @functools.cached_property
    def _bare_call(self) -> Any:
        return _trace(self._bare)

    def output(self, images: np.ndarray) -> np.ndarray:
        """What the model itself gives: logits or probabilities `(b, num_classes)`."""
        return self._call(np.asarray(images, "float32")).numpy()


def _trace(model: keras.Model) -> Any:
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]))],
        autograph=False,
    )


def _check_twice(ends: Ends, given: PixelScale) -> None:
    """Refuses to scale pixels that the model scales by itself."""
    if ends.scale_source and not ends.is_guess and given.name != "0..255":
        raise ValueError(
            f"The model takes pixels in 0..255 and scales them itself, by "
            f"{ends.scale_source}. Received: input_scale={given.name!r}"
        )


def _with_scaling(model: keras.Model, scale: PixelScale) -> keras.Model:
    """A model from pixels in 0..255 that scales them and is then the given one."""
    image = keras.Input(model.input_shape[1:], name="image")
    channels = image.shape[-1]
    mean, std = (np.broadcast_to(it, channels) for it in (scale.mean, scale.std))
    if not scale.bgr:
        layer = PixelScaling(tuple(mean / 255), tuple(std / 255), name="input_scale")
        return keras.Model(image, model(layer(image)))
    # One operation that every accelerator has, where a reversed axis is not.
    layer = keras.layers.Conv2D(channels, 1, trainable=False, name="input_scale")
    layer.build(image.shape)
    layer.set_weights([(np.eye(channels)[::-1] / std)[None, None], -mean / std])
    return keras.Model(image, model(layer(image)))


def load_classifier(
    path: str | pathlib.Path, input_scale: str = "", **given: Any
) -> KerasClassifier:
    """Loads a `.keras`; the options are those of `KerasClassifier`.

    Raises:
        ValueError: If it can't be loaded, is no classifier, or an option does not fit.
    """
    loss = loss_in_file(path)
    classifier = KerasClassifier(load_model(path), input_scale, loss=loss, **given)
    classifier.trained_on = read_records(path)
    return classifier


def _check(model) -> None:
    try:
        taken, given = model.input_shape, model.output_shape
    except AttributeError:
        raise ValueError(
            "The model must be a Keras model that knows its shapes: functional, or a "
            f"Sequential that is built. Received: {model.__class__.__name__}"
        ) from None
    if not isinstance(taken, tuple) or len(taken) != 4 or None in taken[1:]:
        raise ValueError(
            "The model must take one image of a fixed size, shape "
            f"(b, height, width, c). Received: input shape {taken}"
        )
    check_channels_last(taken[1:], "The model")
    # A Sequential around a model has no `output`.
    one = not isinstance(getattr(model, "output", None), dict) and len(given) == 2
    if one and given[1] == 1:
        raise ValueError(
            "The model gives one number an image, a sigmoid's or one that is no class. "
            "A classifier gives one for each of two or more classes."
        )
    if not one or not isinstance(given[1], int):
        raise ValueError(
            "The model must give one row of two or more classes an image, shape "
            f"(b, classes). Received: output shape {given}"
        )
