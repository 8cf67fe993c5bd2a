"""The folder of a training run: what it holds and when it may be written."""

import csv
import json
import pathlib
import shutil
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vit import checkpoints, pictures
from keras_vit.evaluation import Evaluation
from keras_vit.pipeline import ImageData
from keras_vit_files import new_folder, write_json

TRAINING_PAGE = "training_images.png"
# Settings that a run may go on without.
FREE = ("checkpoint_steps",)


def open_folder(
    path: str | pathlib.Path, settings: dict[str, Any], resume: bool
) -> pathlib.Path:
    """Makes the folder of a run, or finds it again.

    Args:
        path: Where it is.
        settings: What decides about the run; `run.json` holds it from the first moment.
        resume: Whether it must be there.

    Raises:
        ValueError: If it is there and must not be, or the other way round, or was made
            with other settings.
    """
    if not resume:
        folder = new_folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", settings)
        return folder
    folder = pathlib.Path(path)
    stored = read_settings(folder)
    names = [name for name in settings if name not in FREE]
    given = _flat(json.loads(json.dumps({name: settings[name] for name in names})))
    stored = _flat({name: stored.get(name) for name in names})
    differing = [
        f"{name} was {stored.get(name)!r}, is {given.get(name)!r}"
        for name in sorted(stored.keys() | given.keys())
        if stored.get(name) != given.get(name)
    ]
    if differing:
        raise ValueError(
            f"'{folder}' was begun with other settings: {'; '.join(differing)}"
        )
    return folder


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    """What an unfinished run was begun with.

    Raises:
        ValueError: If there is no run, or it can't be read, or it is finished.
    """
    if not (folder / "run.json").is_file():
        raise ValueError(f"There is no run to resume in '{folder}'.")
    stored = _read_report(folder)
    if "top1" in stored:
        raise ValueError(f"The run in '{folder}' is finished.")
    return stored


def is_finished(folder: pathlib.Path) -> bool:
    """Whether a run was begun and has come to its end."""
    return (folder / "run.json").is_file() and "top1" in _read_report(folder)


def _read_report(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(found, dict) or not {"dataset", "config", "recipe"} <= set(found):
        raise ValueError(f"'{path}' is not that of a training.")
    return found


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def leave_what_was_finished(folder: pathlib.Path) -> None:
    """After an interruption: curves of the finished epochs, or no folder at all."""
    if (folder / "model.keras").exists():
        pictures.draw_curves(_read_history(folder), folder / "curves.png")
        return
    if not checkpoints.newest(folder):
        checkpoints.remove(folder)
        for name in ("history.csv", TRAINING_PAGE, "run.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "logs", ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _read_history(folder) -> dict[str, list[float]]:
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def finish(
    folder: pathlib.Path,
    data: ImageData,
    history: dict[str, list[float]],
    evaluation: Evaluation,
    best_epoch: int,
    pace: dict[str, float],
) -> None:
    """Writes the pictures of a finished run and completes `run.json`.

    Args:
        folder: The run's folder.
        data: What it was trained on.
        history: Loss and accuracy of each epoch, by column.
        evaluation: Predictions of the test images.
        best_epoch: Number of the epoch whose weights were kept.
        pace: Speed, waiting and memory of the training.
    """
    pictures.draw_curves(history, folder / "curves.png")
    pictures.draw_confusion(evaluation, folder / "confusion.png")
    draw_test_page(data.test, evaluation, folder / "predictions.png")
    settings = _read_report(folder)
    figures = {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "val_top1": max(history["val_accuracy"]),
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch,
    }
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    # Last: a run without top-1 is not finished.
    write_json(
        folder / "run.json", {**settings, **figures, **pace, "versions": versions}
    )


def draw_test_page(
    batches: tf.data.Dataset, evaluation: Evaluation, path: pathlib.Path
) -> None:
    """A page of test images: 32 at random, then up to 8 of the surest mistakes."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    surest = wrong[np.argsort(-evaluation.probabilities[wrong].max(axis=1))][:8]
    rest = np.setdiff1d(np.arange(len(evaluation.labels)), surest)
    random = np.random.default_rng(0).permutation(rest)[:32]
    rows = np.concatenate([random, surest]).astype(int)
    images = _rows_of(batches, rows)
    page = Evaluation(
        evaluation.labels[rows], evaluation.probabilities[rows], evaluation.class_names
    )
    title = (
        f"{len(wrong)} of {len(evaluation.labels)} test images wrong "
        f"(top-1 {evaluation.top1:.1%}); {len(random)} at random, then "
        f"mistakes, the surest first ({len(surest)})"
    )
    pictures.draw_predictions(images, page, title, path)


def _rows_of(batches: tf.data.Dataset, rows: np.ndarray) -> np.ndarray:
    wanted = set(rows.tolist())
    examples = batches.unbatch().enumerate().as_numpy_iterator()
    found = {row: image for row, (image, _) in examples if row in wanted}
    return np.stack([found[row] for row in rows])
