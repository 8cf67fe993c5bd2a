"""The data set that options name, told and fitted to a model."""

import argparse
from collections.abc import Sequence

from keras_vit_export.any_classifier import AnyClassifier

from keras_vit import data
from keras_vit.config import Preprocessing
from keras_vit.data import ImageData, ImageSource
from keras_vit.data.layouts import same_name
from keras_vit.data.reported import choose_part
from keras_vit.data.trained_on import KEY, known_records


def find_source(
    options: argparse.Namespace, few: str = "refuse", dataset: str | None = None
) -> ImageSource:
    """The data set of `--dataset`, or another; what was guessed and left out is told."""
    name = options.dataset if dataset is None else dataset
    source = data.find_source(
        name, data_dir=options.data_dir, broken=options.broken, few=few
    )
    for note in source.notes:
        print(note)
    return source


def data_for(
    classifier: AnyClassifier, options: argparse.Namespace, *, whole: bool = False
) -> ImageData:
    """The data set, fitted to a model; both must mean the same classes.

    Its `test` images are those that figures are of, which is told. Of a folder that the
    model was not trained on they are all if `whole`.
    """
    source = find_source(options, "test" if whole else "refuse")
    source = _match_classes(classifier, source, options)
    records = known_records({KEY: classifier.trained_on})
    reported = choose_part(source, options.split, options.model, records, whole=whole)
    for line in reported.words:
        print(line)
    return source.load(
        Preprocessing(**classifier.preprocessing), reported=reported.part
    )


def _match_classes(
    classifier: AnyClassifier, source: ImageSource, options: argparse.Namespace
) -> ImageSource:
    """The data set with its classes in the model's order."""
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
        return source.in_order([given.index(name) for name in known])
    return source


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"
