"""Keras models in files: saved for use, loaded in safe mode."""

import json
import pathlib
import sys
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import h5py
import keras
from keras_vit_device.files import (
    existing_file,
    open_archive,
    read_entry,
    whole_file,
)
from keras_vit_device.terminal import one_line

from keras_vit.reuse import switch

_WEIGHTS = "model.weights.h5"


def save_model(model: keras.Model, path: str | pathlib.Path) -> None:
    """Saves a model for use: without the optimizer's state, which is twice its size,
    and with no layer frozen."""
    # Not lists of one: a loaded model would give one, and want one.
    bare = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    with whole_file(path) as partial, switch(bare.layers, "trainable", True):
        bare.save(partial)


def load_model(path: str | pathlib.Path) -> keras.Model:
    """Loads a `.keras` file in safe mode.

    Raises:
        ValueError: If the file is missing, a folder, cut off, or no Keras model; or if
            it has classes that no module imported so far has registered, or code.
    """
    path = existing_file(path)
    _check_archive(path)
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, JSON, HDF5 and Keras each fail in their own way
        raise ValueError(f"'{path}' {_why_not_loaded(path, error)}") from error


def _check_archive(path: pathlib.Path) -> None:
    """Refuses what is no model, before anything of it is unpacked or made room for."""
    if not zipfile.is_zipfile(path):  # Keras would say that it isn't there
        raise ValueError(f"'{path}' is cut off or is no Keras model: no ZIP file.")
    try:
        with open_archive(path) as archive:
            names = set(archive.namelist())
            if _WEIGHTS in names:
                with archive.open(_WEIGHTS) as file:
                    _check_weights(file, archive.getinfo(_WEIGHTS).file_size)
    except Exception as error:  # zip and HDF5 each fail in their own way
        raise ValueError(
            f"'{path}' is cut off or is no Keras model. {one_line(error, 200)}"
        ) from error


def _check_weights(file: IO[bytes], size: int) -> None:
    """Whether arrays in HDF5 are as large as what they take in the file, or nearly.

    HDF5 makes room for those that were declared and never written.
    """
    declared = 0

    def add(_: str, found: h5py.Group | h5py.Dataset) -> None:
        nonlocal declared
        if isinstance(found, h5py.Dataset):
            declared += found.nbytes

    with h5py.File(file, "r") as weights:
        weights.visititems(add)
    if declared > 2 * size + 2**24:
        raise ValueError(
            f"Its weights would take {declared:,} bytes, and the file holds {size:,}."
        )


def _why_not_loaded(path: pathlib.Path, error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    try:
        with open_archive(path) as archive:
            whole = archive.testzip() is None
            nodes = list(_nodes(json.loads(read_entry(archive, "config.json"))))
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of them
        whole, nodes = False, []
    if not whole:
        return f"is cut off or is no Keras model. {reason}"
    unknown = sorted({it for it in map(_unknown_class, nodes) if it})
    if unknown:
        modules = sorted({module.split(".")[0] for module, _ in unknown})
        return (
            "has classes that are not known here: "
            f"{', '.join(f'{name} of {module}' for module, name in unknown[:5])}. "
            "Import what registers them before it is loaded: "
            f"{' '.join(f'--import {module}' for module in modules)} "
            f"(import {', '.join(modules)})."
        )
    if any(node["class_name"] == "__lambda__" for node in nodes):
        return (
            "holds Python code in a Lambda layer, which is not run: it could do "
            "anything. Build the model with a layer or with keras.ops in its place."
        )
    return f"can't be rebuilt. {reason}"


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that a model's configuration names a class of."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _nodes(part)


def _unknown_class(node: dict[str, Any]) -> tuple[str, str] | None:
    """(module, name) of a class that is neither Keras' nor registered."""
    module, name = str(node.get("module") or ""), node["class_name"]
    registered = node.get("registered_name")
    if not isinstance(registered, str) or not registered:
        return None
    if module.split(".")[0] in ("", "builtins", "keras"):
        return None
    if keras.saving.get_registered_object(registered) is not None:
        return None
    return None if hasattr(sys.modules.get(module), name) else (module, name)
