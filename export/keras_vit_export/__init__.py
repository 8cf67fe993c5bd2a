"""A trained Keras model -> a `.tflite` whose accuracy was measured.

Light: importing this package loads neither TensorFlow nor Keras.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vit_device.classifier import Classifier

    from keras_vit_export.exporter import export
    from keras_vit_export.report import Report

__all__ = ["Classifier", "Report", "export"]

_HOMES = {
    "Classifier": "keras_vit_device.classifier",
    "Report": "keras_vit_export.report",
    "export": "keras_vit_export.exporter",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
