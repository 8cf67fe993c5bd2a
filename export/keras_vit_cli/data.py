"""The data set that options name, told and fitted to a model."""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Self

from keras_vit_device.terminal import say
from keras_vit_export.any_classifier import AnyClassifier

from keras_vit import data
from keras_vit.config import Preprocessing
from keras_vit.data import ImageData, ImageSource
from keras_vit.data.folder_layouts import same_name
from keras_vit.data.reported import choose_part
from keras_vit.data.trained_on import KEY, known_records


@dataclasses.dataclass(frozen=True)
class AskedData:
    """What options say of a data set.

    Attributes:
        name: Of it, or its folder.
        data_dir: Where TensorFlow Datasets keeps its files.
        broken: What becomes of unreadable files.
    """

    name: str
    data_dir: str | None
    broken: str

    @classmethod
    def of(cls, options: argparse.Namespace, otherwise: str | None = None) -> Self:
        """What was parsed; another data set where none is named."""
        name = otherwise if options.dataset is None else options.dataset
        return cls(name, options.data_dir, options.broken)

    def open(self, few: str = "refuse") -> ImageSource:
        """The data set; what was guessed and left out is told."""
        source = data.find_source(
            self.name, data_dir=self.data_dir, broken=self.broken, few=few
        )
        for note in source.notes:
            say(note)
        return source


def data_for(
    classifier: AnyClassifier,
    model: pathlib.Path,
    asked: AskedData,
    split: str | None,
    *,
    whole: bool = False,
) -> ImageData:
    """The data set, fitted to a model; both must mean the same classes.

    Its `test` images are those that figures are of, which is told: of a split, if one is
    asked for. Of a folder that the model was not trained on they are all if `whole`.
    """
    source = source_for(classifier, model, asked, "test" if whole else "refuse")
    records = known_records({KEY: classifier.trained_on})
    reported = choose_part(source, split, model, records, whole=whole)
    for line in reported.words:
        say(line)
    return source.load(
        Preprocessing(**classifier.preprocessing), reported=reported.part
    )


def source_for(
    classifier: AnyClassifier,
    model: pathlib.Path,
    asked: AskedData,
    few: str = "refuse",
) -> ImageSource:
    """The data set, with its classes in a model's order; both must mean the same."""
    return _match_classes(classifier, asked.open(few), model)


def _match_classes(
    classifier: AnyClassifier, source: ImageSource, model: pathlib.Path
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
            f"'{model}' and {source.name!r} differ in their classes. "
            f"Received: {_name_first(classifier.class_names)} and "
            f"{_name_first(source.class_names)}"
        )
    if not classifier.named:
        say("The model names no classes: they are taken for those of the data set.")
        classifier.name_classes(source.class_names)
    elif known != given:
        say("The model has the classes in another order: they are matched by name.")
        return source.with_classes_in([given.index(name) for name in known])
    return source


def _name_first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"
