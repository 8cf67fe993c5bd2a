"""One face for a `.keras` and a `.tflite`: class names, preprocessing, probabilities."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from keras_vit_device.classifier import Classifier
from keras_vit_device.meaning import Meaning
from keras_vit_device.pixel_scale import PixelScale


class AnyClassifier(Protocol):
    """What `Classifier` and `KerasClassifier` have in common."""

    class_names: tuple[str, ...]
    named: bool
    preprocessing: dict
    scale: PixelScale
    scale_source: str
    is_guess: bool
    doubt: str
    remarks: tuple[str, ...]
    meaning: Meaning
    trained_on: list[dict]

    def name_classes(self, names: Sequence[str]) -> None: ...

    def check_meaning(self) -> None: ...

    def output_of(self, numbers: np.ndarray) -> np.ndarray: ...

    def read(self, path: str | pathlib.Path) -> np.ndarray: ...

    def output(self, images: Iterable[np.ndarray]) -> np.ndarray: ...

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray: ...


def open_classifier(
    path: str | pathlib.Path,
    input_scale: str = "",
    *,
    logits: bool = False,
    class_names: Sequence[str] = (),
) -> AnyClassifier:
    """Loads a `.keras` or a `.tflite`; the options are those of `KerasClassifier`.

    Raises:
        ValueError: If the file is missing, cut off, of another kind, or no classifier,
            or an option does not fit it.
    """
    given = {"logits": logits, "class_names": class_names}
    suffix = pathlib.Path(path).suffix
    if suffix == ".tflite":
        return Classifier(path, input_scale=input_scale, **given)
    if suffix != ".keras":
        raise ValueError(f"A model is a .keras or a .tflite file. Received: '{path}'")
    # Not at the top: a `.tflite` is opened without TensorFlow.
    from keras_vit_export.keras_classifier import load_classifier

    return load_classifier(path, input_scale, **given)
