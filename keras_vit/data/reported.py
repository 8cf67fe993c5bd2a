"""Which part of a data set figures are of, and whether the model was trained on it.

A folder that the model was not trained on is taken whole. The images of the model's own
training are known by their content (`keras_vit.data.trained_on`).
"""

import dataclasses
import json
import pathlib

from keras_vit_device.images import image_names

from keras_vit.data.pipeline import ImageSource
from keras_vit.data.trained_on import Record, hashes, overlap

# Of the sampled training images, those that may have been lost from the model's own
# folder since.
_LOST = 0.1


@dataclasses.dataclass(frozen=True)
class Reported:
    """What figures are of.

    Attributes:
        part: `"train"`, `"validation"`, `"test"` or `"all"`.
        words: How many images of how many that are, and why, a line each.
    """

    part: str
    words: tuple[str, ...]


def choose_part(
    source: ImageSource,
    split: str | None,
    model: pathlib.Path,
    records: list[Record],
    *,
    whole: bool,
) -> Reported:
    """What the figures of a model are of.

    Args:
        source: The data set.
        split: What was asked for, or `None`.
        model: Path of the model's file.
        records: What the model's file says of its training.
        whole: Whether another folder than the training's is taken whole.
    """
    if not source.is_folder:
        return _tell(source, split or "test", _why_asked(split))
    by_part = {name: set(hashes(source.paths(name))) for name in source.splits}
    every = set().union(*by_part.values())
    part, why = _of_folder(source, split, records, every, model, whole)
    known, sampled = overlap(records, by_part.get(part, every))
    told = _tell(source, part, why)
    if not known:
        return told
    warning = (
        f"{known} of {sampled} sampled training images are among these: the figure is "
        "too good."
    )
    return Reported(part, (*told.words, warning))


def _why_asked(split: str | None) -> str:
    return f"as --split {split} says" if split else "its own test part"


def _of_folder(source, split, records, every, model, whole) -> tuple[str, str]:
    if split:
        return split, _why_asked(split)
    if not source.splits["train"].count:
        return "all", "a class has too few images to hold some out"
    if "test" not in source.cut:
        return "test", "the folder's own test part"
    known, sampled = overlap(records, every)
    why = "as the model was trained on the others"
    if sampled:
        is_other = known < (1 - _LOST) * sampled
    elif records:  # of a data set that is no folder
        is_other = True
    else:
        theirs = _files_of_run(model)
        is_other = bool(theirs) and not every & theirs
        if not theirs or not theirs <= every:
            why = "as nothing tells whether it was trained on the others"
            why += "; --split all is all"
    if not is_other:
        return "test", f"the test part, {why}"
    if not whole:
        return "test", "the test part; --split all is all"
    if known:
        return "all", "though the model was trained on a part of them"
    return "all", "as the model was not trained on them"


def _files_of_run(model: pathlib.Path) -> set[str]:
    """Hashes of the data set of the run that a model of an earlier version lies in."""

    if model.name != "model.keras":
        return set()  # it may have been put there
    try:
        name = json.loads((model.parent / "run.json").read_bytes())["dataset"]
        folder = pathlib.Path(name)
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    if not folder.is_dir():  # moved since, or none
        return set()
    return set(hashes(folder / it for it in image_names(folder)))


def _tell(source: ImageSource, part: str, why: str) -> Reported:
    total = sum(split.count for split in source.splits.values())
    count = f"All {total:,}" if part == "all" else f"{source.part(part).count:,} of"
    rest = "" if part == "all" else f" {total:,}"
    return Reported(part, (f"{count}{rest} images are reported on: {why}.",))
