"""One face for a `.keras` and a `.tflite`: class names, preprocessing, probabilities."""

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_vit_export.runtime import Classifier
from keras_vit_pixels import fit_image, open_image

if TYPE_CHECKING:
    import keras


class AnyClassifier(Protocol):
    """What `Classifier` and `KerasClassifier` have in common."""

    class_names: tuple[str, ...]
    preprocessing: dict

    def read(self, path: str | pathlib.Path) -> np.ndarray: ...

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray: ...


class KerasClassifier:
    """A Keras model as a classifier of images.

    Args:
        model: From images `(b, height, width, c)` in 0..255 to logits or
            probabilities `(b, num_classes)`.

    Raises:
        ValueError: If the model does not take one image of a fixed size, or does not
            give one number for each of two or more classes that exclude each other.
    """

    def __init__(self, model: "keras.Model"):
        import tensorflow as tf

        _check(model)
        self.model = model
        # Traced once for any number of images; `predict` traces anew for each.
        self._call = tf.function(
            lambda images: model(images, training=False),
            input_signature=[tf.TensorSpec((None, *model.input_shape[1:]))],
            autograph=False,
        )
        self.size_bytes = sum(
            int(np.prod(w.shape)) * np.dtype("float32").itemsize for w in model.weights
        )
        self.operations: dict[str, dict[str, int]] = {}
        self.preprocessing, self.class_names = _contract_of(model)
        noise = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
        self.ends_in_probabilities = _gives_probabilities(self.output(noise))

    def read(self, path: str | pathlib.Path) -> np.ndarray:
        """Decodes an image file and fits it to the model: uint8 `(height, width, c)`.

        Raises:
            OSError: If the file is no image or is cut off.
        """
        return fit_image(open_image(path), **self.preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images `(height, width, c)`, 0..255.

        Raises:
            ValueError: If the model gives NaN or infinity.
        """
        from keras import ops

        output = self.output(np.asarray(images))
        if not np.isfinite(output).all():
            raise ValueError("The Keras model gives NaN or infinity.")
        return output if self.ends_in_probabilities else np.array(ops.softmax(output))

    def output(self, images: np.ndarray) -> np.ndarray:
        """What the model itself gives: logits or probabilities `(b, num_classes)`."""
        return self._call(np.asarray(images, "float32")).numpy()


def open_classifier(path: str | pathlib.Path) -> AnyClassifier:
    """Loads a `.keras` or a `.tflite`.

    Raises:
        ValueError: If the file is missing, cut off, or of another kind.
    """
    suffix = pathlib.Path(path).suffix
    if suffix == ".tflite":
        return Classifier(path)
    if suffix != ".keras":
        raise ValueError(f"A model is a .keras or a .tflite file. Received: '{path}'")
    from keras_vit.files import load_model

    return KerasClassifier(load_model(path))


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
    # A Sequential around a model has no `output`.
    one = not isinstance(getattr(model, "output", None), dict) and len(given) == 2
    if not one or not isinstance(given[1], int) or given[1] < 2:
        raise ValueError(
            "The model must give one row of two or more classes an image, shape "
            f"(b, classes). Received: output shape {given}"
        )
    last = model.layers[-1]
    while getattr(last, "layers", None):  # a model inside the model
        last = last.layers[-1]
    if getattr(getattr(last, "activation", None), "__name__", "") == "sigmoid":
        raise ValueError(
            "The model ends in a sigmoid, whose classes do not exclude each other; "
            "a classifier ends in logits or a softmax."
        )


def _gives_probabilities(output: np.ndarray) -> bool:
    from keras_vit.evaluation import gives_probabilities

    return gives_probabilities(output)


def _contract_of(model) -> tuple[dict, tuple[str, ...]]:
    """Preprocessing and class names; a plain stretch where the model does not say."""
    from keras_vit.config import Preprocessing
    from keras_vit.model import config_of

    try:
        config = config_of(model)
        names = config.class_names
    except ValueError:
        _, height, width, channels = model.input_shape
        config = Preprocessing(image_size=(height, width), channels=channels)
        names = ()
    count = model.output_shape[-1]
    return config.rule, names or tuple(f"class {index}" for index in range(count))
