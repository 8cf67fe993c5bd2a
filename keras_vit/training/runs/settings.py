"""What `run.json` and `history.csv` say of a run, held against what can be.

Files are copied, merged and edited by hand, and folders come from strangers.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from keras_vit.training.recipes import TrainingRecipe


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "dataset": _is_text,
    "counts": lambda value: _is_object(value) and all(map(_is_count, value.values())),
    "config": _is_object,
    "recipe": _is_object,
    "batch_size": lambda value: _is_count(value) and value > 0,
    "precision": _is_text,
    "seed": _is_count,
    "origin": _is_text_or_none,
    "teacher": _is_text_or_none,
    "teacher_weights": _is_text_or_none,
    "checkpoint_steps": _is_count,
    "restarted_after": _is_count,
    "no_number_at_step": _is_count,
    "changed": lambda value: isinstance(value, list),
    "epochs": _is_count,
    "top1": lambda value: isinstance(value, int | float),
}


_NEEDED = {"dataset", "config", "recipe"}


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    """What a run was begun with, and its figures if it is finished.

    Raises:
        ValueError: If there is no run, or it can't be read.
    """
    if not (folder / "run.json").is_file():
        raise ValueError(f"There is no run to resume in '{folder}'.")
    found = read_report(folder)
    # Runs of earlier versions lack fields that came later, and had their defaults.
    found["recipe"] = dataclasses.asdict(TrainingRecipe()) | found["recipe"]
    return found


def check_more_epochs(
    folder: pathlib.Path, report: dict[str, Any], epochs: int | None
) -> None:
    """Raises a `ValueError` if a run is finished and does not get more epochs."""
    if "top1" in report and (epochs or 0) <= report["epochs"]:
        raise ValueError(
            f"The run in '{folder}' is finished; it goes on with --epochs of more than "
            f"its {report['epochs']}. Received: {epochs}"
        )


def is_finished(folder: pathlib.Path) -> bool:
    """Whether a run was begun and has come to its end."""
    return (folder / "run.json").is_file() and "top1" in read_report(folder)


def read_report(folder: pathlib.Path) -> dict[str, Any]:
    """What `run.json` holds, as it stands there.

    Raises:
        ValueError: If it is no JSON, not that of a training, or has what can't be.
    """
    path = folder / "run.json"
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(found, dict) or not _NEEDED <= set(found):
        raise ValueError(f"'{path}' is not that of a training.")
    for name, is_fit in _SETTINGS.items():
        if name in found and not is_fit(found[name]):
            raise ValueError(f"'{path}' is damaged: {name} is {found[name]!r:.80}.")
    return found


def read_history(folder: pathlib.Path) -> list[dict[str, float]]:
    """The rows of `history.csv`."""
    path = folder / "history.csv"
    try:
        with open(path, newline="") as file:
            read = list(csv.DictReader(file))
        rows = [{name: float(value) for name, value in row.items()} for row in read]
        return [row | {"epoch": int(row["epoch"])} for row in rows]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error
