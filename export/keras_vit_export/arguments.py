"""What options name: models, data sets, images, and files to write.

Functions import what they need: `classify` on a `.tflite` must not wait for
TensorFlow.
"""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from keras_vit_device.files import existing_file
from keras_vit_device.terminal import quiet
from keras_vit_device.tflite import labels

if TYPE_CHECKING:
    from keras_vit_device.images import LeftOut

    from keras_vit import ImageData
    from keras_vit.data import ImageSource
    from keras_vit.data.trained_on import Record
    from keras_vit_export.keras_classifier import AnyClassifier


def find_source(options: argparse.Namespace, few: str = "refuse") -> "ImageSource":
    """The data set of `--dataset`; what was guessed and left out is told."""
    with quiet():
        from keras_vit import data
    source = data.find_source(
        options.dataset, data_dir=options.data_dir, broken=options.broken, few=few
    )
    for note in source.notes:
        print(note)
    return source


def open_model(path: pathlib.Path, **ends: Any) -> "AnyClassifier":
    """The classifier of a `.keras` or `.tflite` file; `ends` are of `open_classifier`."""
    if path.suffix == ".keras":
        with quiet():
            import keras_vit  # noqa: F401 - registers the layers
    from keras_vit_export.keras_classifier import open_classifier

    with quiet():
        classifier = open_classifier(path, **ends)
    classifier.trained_on = _records(path, classifier)
    for line in classifier.remarks:
        print(line, file=sys.stderr)
    return classifier


def _records(path: pathlib.Path, classifier: "AnyClassifier") -> list["Record"]:
    """What a model's file says of its training."""
    if path.suffix != ".keras":
        return classifier.contract.get("trained_on", [])
    from keras_vit.data.trained_on import read_records

    return read_records(path)


def open_keras(path: pathlib.Path, **ends: Any) -> "AnyClassifier":
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
        "class_names": () if path is None else read_labels(path),
    }


def read_labels(path: pathlib.Path) -> tuple[str, ...]:
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


def data_for(
    classifier: "AnyClassifier", options: argparse.Namespace, *, whole: bool = False
) -> "ImageData":
    """The data set, fitted to a model; both must mean the same classes.

    Its `test` images are those that figures are of, which is told. Of a folder that the
    model was not trained on they are all if `whole`.
    """
    source = find_source(options, "test" if whole else "refuse")
    from keras_vit.config import Preprocessing
    from keras_vit.data.layouts import same_name
    from keras_vit.data.trained_on import KEY, known_records
    from keras_vit_export.reported import choose_part

    # macOS and Linux may spell one name in two ways.
    known, given = (
        tuple(map(same_name, names))
        for names in (classifier.class_names, source.class_names)
    )
    if len(known) != len(given) or (
        classifier.named and sorted(known) != sorted(given)
    ):
        raise ValueError(
            f"'{options.model}' and {options.dataset!r} differ in their classes. "
            f"Received: {_few(classifier.class_names)} and {_few(source.class_names)}"
        )
    if not classifier.named:
        print("The model names no classes: they are taken for those of the data set.")
        classifier.name_classes(source.class_names)
    elif known != given:
        print("The model has the classes in another order: they are matched by name.")
        source = source.in_order([given.index(name) for name in known])
    records = known_records({KEY: classifier.trained_on})
    reported = choose_part(source, options, records, whole=whole)
    for line in reported.words:
        print(line)
    return source.load(
        Preprocessing(**classifier.preprocessing), reported=reported.part
    )


def _few(names) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def image_paths(given: list[pathlib.Path]) -> tuple[list[pathlib.Path], "LeftOut"]:
    """Files as given, and all images in folders, sorted; and what is left out there."""
    from keras_vit_device.images import LeftOut, image_names

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


def next_free(path: pathlib.Path) -> pathlib.Path:
    """`path-1`, or the first such name with a higher number that is free."""
    number = 1
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free
