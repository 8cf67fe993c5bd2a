"""What a device installs: a `.tflite` with its class names, and images for it.

NumPy, Pillow and LiteRT only. Training takes its pixels from here, so that it sees those
that the device sees. Importing this package loads none of them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vit_device.classifier import Classifier

__all__ = ["Classifier"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("keras_vit_device.classifier").Classifier
