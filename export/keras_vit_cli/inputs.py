"""Models and images that options name; `data.py` has data sets.

Light: `classify` on a `.tflite` must not wait for TensorFlow.
"""

import argparse
import pathlib
import sys
from typing import Any

from keras_vit_device.files import existing_file
from keras_vit_device.images import LeftOut, image_names
from keras_vit_device.terminal import say
from keras_vit_device.tflite import labels
from keras_vit_export.any_classifier import AnyClassifier, open_classifier


def open_model(path: pathlib.Path, **ends: Any) -> AnyClassifier:
    """The classifier of a `.keras` or `.tflite` file; `ends` are of `open_classifier`."""
    classifier = open_classifier(path, **ends)
    for line in classifier.remarks:
        say(line, file=sys.stderr)
    return classifier


def open_keras(path: pathlib.Path, **ends: Any) -> AnyClassifier:
    """The classifier of a `.keras` file; no other will do."""
    if path.suffix != ".keras":
        raise ValueError(f"A .keras file is needed. Received: '{path}'")
    return open_model(path, **ends)


def given_ends(options: argparse.Namespace) -> dict[str, Any]:
    """What options say of a model's two ends, for `open_model`."""
    path = options.labels
    return {
        "input_scale": options.input_scale,
        "logits": options.logits,
        "class_names": () if path is None else _read_labels(path),
    }


def _read_labels(path: pathlib.Path) -> tuple[str, ...]:
    """Names of classes from a file, one a line.

    Raises:
        ValueError: If it is missing, no text, or has empty lines between names.
    """
    try:
        names = labels.parse(existing_file(path).read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no UTF-8 text: {error}") from error
    if not names or "" in names:
        raise ValueError(f"'{path}' must have a class name in each line.")
    return names


def image_paths(given: list[pathlib.Path]) -> tuple[list[pathlib.Path], LeftOut]:
    """Files as given, and all images in folders, sorted; and what is left out there."""
    paths, left_out = [], LeftOut()
    for path in given:
        if not path.exists():
            raise ValueError(f"There is no file or folder '{path}'.")
        if path.is_dir():
            found = [path / name for name in image_names(path, left_out)]
            if not found:
                raise ValueError(left_out.explain_none(path))
            paths += found
        else:
            paths.append(path)
    return paths, left_out
