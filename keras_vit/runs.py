"""The folder of a training run: what it holds and when it may be written."""

import csv
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vit import pictures
from keras_vit.evaluation import Evaluation
from keras_vit.files import write_json
from keras_vit.pipeline import ImageData


def new_folder(path: str | pathlib.Path) -> pathlib.Path:
    """Checks that a run may go to this folder; does not make it yet.

    Raises:
        ValueError: If it is a file or holds something.
    """
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(f"'{path}' already holds a run or other files.")
    return path


def leave_what_was_finished(folder: pathlib.Path) -> None:
    """After an interruption: curves of the finished epochs, or no folder at all."""
    if (folder / "model.keras").exists():
        pictures.draw_curves(_read_history(folder), folder / "curves.png")
        return
    (folder / "history.csv").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _read_history(folder) -> dict[str, list[float]]:
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def write(
    folder: pathlib.Path,
    data: ImageData,
    history: dict[str, list[float]],
    evaluation: Evaluation,
    settings: dict[str, Any],
) -> None:
    """Writes the pictures and `run.json` of a finished run.

    Args:
        folder: The run's folder.
        data: What it was trained on.
        history: Loss and accuracy of each epoch, by column.
        evaluation: Predictions of the test images.
        settings: What else `run.json` says.
    """
    write_json(
        folder / "run.json",
        dict(
            dataset=data.name,
            counts=data.counts,
            top1=evaluation.top1,
            top5=evaluation.top5,
            val_top1=max(history["val_accuracy"]),
            epochs=len(history["loss"]),
            **settings,
            versions={"keras": keras.__version__, "tensorflow": tf.__version__},
        ),
    )
    pictures.draw_curves(history, folder / "curves.png")
    pictures.draw_confusion(evaluation, folder / "confusion.png")
    draw_test_page(data.test, evaluation, folder / "predictions.png")


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
        f"(top-1 {evaluation.top1:.1%}); {len(random)} at random, then the "
        f"{len(surest)} surest mistakes"
    )
    pictures.draw_predictions(images, page, title, path)


def _rows_of(batches: tf.data.Dataset, rows: np.ndarray) -> np.ndarray:
    wanted = set(rows.tolist())
    examples = batches.unbatch().enumerate().as_numpy_iterator()
    found = {row: image for row, (image, _) in examples if row in wanted}
    return np.stack([found[row] for row in rows])
