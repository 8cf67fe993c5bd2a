"""Keras models in files: saved for use, loaded in safe mode."""

import pathlib
import zipfile

import keras

from keras_vit.switching import switched
from keras_vit_files import existing_file, whole_file


def save_model(model: keras.Model, path: str | pathlib.Path) -> None:
    """Saves a model for use: without the optimizer's state, which is twice its size,
    and with no layer frozen."""
    # Not lists of one: a loaded model would give one, and want one.
    bare = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    with whole_file(path) as partial, switched(bare.layers, "trainable", True):
        bare.save(partial)


def load_model(path: str | pathlib.Path) -> keras.Model:
    """Loads a `.keras` file in safe mode.

    Raises:
        ValueError: If the file is missing, a folder, cut off, or no Keras model.
    """
    path = existing_file(path)
    if not zipfile.is_zipfile(path):  # Keras would say that it isn't there
        raise ValueError(f"'{path}' is cut off or is no Keras model: no ZIP file.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, JSON, HDF5 and Keras each fail in their own way
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"'{path}' is cut off or is no Keras model. {type(error).__name__}: "
            f"{reason}"
        ) from error
