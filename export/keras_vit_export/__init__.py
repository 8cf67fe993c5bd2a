"""A trained Keras model -> a `.tflite` whose accuracy was measured.

Light: importing this package loads neither TensorFlow nor Keras.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vit_device import Classifier

    from keras_vit_export.exporter import export, export_all
    from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
    from keras_vit_export.quantization.smoothing import smoothing_scale
    from keras_vit_export.report.measure import Report

_HOMES = {
    "QUANTIZATION_RECIPES": "keras_vit_export.quantization.recipes",
    "Classifier": "keras_vit_device.classifier",
    "Report": "keras_vit_export.report.measure",
    "export": "keras_vit_export.exporter",
    "export_all": "keras_vit_export.exporter",
    "smoothing_scale": "keras_vit_export.quantization.smoothing",
}
__all__ = [
    "QUANTIZATION_RECIPES",
    "Classifier",
    "Report",
    "export",
    "export_all",
    "smoothing_scale",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
