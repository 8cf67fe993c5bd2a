"""Files that are written whole or not at all."""

import contextlib
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from keras_vit.freezing import trainable


@contextlib.contextmanager
def whole_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, renamed to `path` once the block ends without an error.

    After an error, or a kill at any moment, `path` is what it was before.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def as_json(content: dict[str, Any]) -> bytes:
    """Indented JSON with a newline at its end."""
    return (json.dumps(content, indent=2) + "\n").encode()


def write_json(path: str | pathlib.Path, content: dict[str, Any]) -> None:
    """Writes indented JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(as_json(content))


def new_folder(path: str | pathlib.Path) -> pathlib.Path:
    """Checks that a folder is new or empty; does not make it yet.

    Raises:
        ValueError: If it is a file or holds something.
    """
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(f"'{path}' already holds a run or other files.")
    return path


def save_model(model: keras.Model, path: str | pathlib.Path) -> None:
    """Saves a model for use: without the optimizer's state, which is twice its size,
    and with no layer frozen."""
    # Not lists of one: a loaded model would give one, and want one.
    bare = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    with whole_file(path) as partial, trainable(bare.layers, True):
        bare.save(partial)


def load_model(path: str | pathlib.Path) -> keras.Model:
    """Loads a `.keras` file in safe mode.

    Raises:
        ValueError: If the file is missing, cut off, or no Keras model.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'.")
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
