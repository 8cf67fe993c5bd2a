"""The folder of a training run: what it holds and when it may be written."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras_vit_device.files import claim, new_folder, write_json

from keras_vit import pictures
from keras_vit.data.pipeline import ImageData
from keras_vit.evaluation import Evaluation
from keras_vit.training.callbacks import NoNumberError, Progress
from keras_vit.training.logs import draw_test_page
from keras_vit.training.runs import checkpoints
from keras_vit.training.runs.settings import (
    check_more_epochs,
    read_history,
    read_report,
    read_settings,
)

TRAINING_PAGE = "training_images.png"
# Settings that a run may go on without.
FREE = ("checkpoint_steps",)
# What may differ once a run has ended: with its last epoch, or by a loss that was no
# number. A given learning rate brings the batch size that it is for.
_RATE = ("recipe.learning_rate", "recipe.batch_size")
_MORE = ("recipe.epochs", *_RATE)


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run, with a folder or without, seen from one of its processes.

    Attributes:
        folder: Where it is kept, or `None`.
        writes: Whether this process writes there.
        resumed: Whether it was begun before.
        report: What `run.json` held when it was opened.
    """

    folder: pathlib.Path | None = None
    writes: bool = False
    resumed: bool = False
    report: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        output: str | pathlib.Path | None,
        settings: dict[str, Any],
        resume: bool,
        chief: bool,
    ) -> Iterator[Self]:
        """A new run, or one that is found again; arguments as of `_open_folder`.

        While the block runs, no other process may write its folder.

        Args:
            output: Its folder, or `None` for none.
            settings: What decides about the run.
            resume: Whether it must be there.
            chief: Whether this process writes, if there is a folder.

        Raises:
            ValueError: As `_open_folder`, or if one that goes on has no folder, or
                another process is writing it.
        """
        if output is None:
            if resume:
                raise ValueError(
                    "A run that goes on needs its folder. Received: output=None"
                )
            yield cls()
            return
        folder, report = pathlib.Path(output), {}
        with _only_writer(folder, resume) if chief else contextlib.nullcontext():
            if chief or resume:
                report = _open_folder(folder, settings, resume, chief)
            yield cls(folder, chief, resume, report)

    @property
    def restarted_after(self) -> int:
        """Epochs that were done when the learning rate's course began anew."""
        return self.report.get("restarted_after", 0)

    def path(self, name: str) -> pathlib.Path | None:
        """Of a file that this process writes, or `None` if it doesn't."""
        return self.folder / name if self.writes else None

    def start(self, steps_per_epoch: int) -> dict[str, Any]:
        """Where it goes on: the notes of its newest checkpoint, or of its beginning."""
        if not self.resumed:
            return {"step": 0, "history": []}
        return _start_of(self.folder, self.report, steps_per_epoch)

    @contextlib.contextmanager
    def kept_whole(self, progress: Progress) -> Iterator[None]:
        """If the block is interrupted or fails, the folder is left with what was done."""
        try:
            yield
        except BaseException as error:
            if self.writes:
                if isinstance(error, NoNumberError):
                    _note_no_number(self.folder, progress.done)
                _leave_what_was_finished(self.folder)
            raise

    def finish(self, *figures: Any) -> None:
        """Writes what a finished run has, if this process writes; see `finish`."""
        if self.writes:
            finish(self.folder, *figures)
            checkpoints.remove(self.folder)


@contextlib.contextmanager
def _only_writer(folder: pathlib.Path, resume: bool) -> Iterator[None]:
    """Makes the folder of a new run, and keeps other processes from writing it."""
    if resume:
        read_settings(folder)  # is there a run at all
    else:
        new_folder(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk that knows no locks of folders
            claim(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _open_folder(
    path: str | pathlib.Path,
    settings: dict[str, Any],
    resume: bool,
    write: bool = True,
) -> dict[str, Any]:
    """Begins a run in a folder, or finds it again; gives what `run.json` then holds.

    Args:
        path: Where it is.
        settings: What decides about the run; `run.json` holds it from the first moment.
        resume: Whether it must be there.
        write: Whether this worker writes.

    Raises:
        ValueError: If it is there and must not be, or the other way round, or was made
            with other settings, or is finished and gets no more epochs.
    """
    if not resume:
        folder = new_folder(path)
        write_json(folder / "run.json", settings)
        return settings
    folder = pathlib.Path(path)
    report = read_settings(folder)
    names = [name for name in settings if name not in FREE]
    given = _flat(json.loads(json.dumps({name: settings[name] for name in names})))
    stored = _flat({name: report.get(name) for name in names})
    changed = {
        name: (stored.get(name), given.get(name))
        for name in sorted(stored.keys() | given.keys())
        if stored.get(name) != given.get(name)
    }
    check_more_epochs(folder, report, settings["recipe"]["epochs"])
    done = report["epochs"] if "top1" in report else 0
    free = _MORE if done else _RATE if "no_number_at_step" in report else ()
    if differing := [
        f"{name} was {was!r}, is {now!r}"
        for name, (was, now) in changed.items()
        if name not in free
    ]:
        raise ValueError(
            f"'{folder}' was begun with other settings: {'; '.join(differing)}"
        )
    if not changed:
        return report
    report = _reopen(folder, report, settings["recipe"], changed, done)
    if write:
        if "restarted_after" in report:
            checkpoints.remove(folder)
        write_json(folder / "run.json", report)
    return report


def _reopen(
    folder: pathlib.Path, report, recipe: dict[str, Any], changed, done: int
) -> dict[str, Any]:
    """What `run.json` says of a run that had ended and goes on with what is changed."""
    kept = dict(itertools.takewhile(lambda it: it[0] != "top1", report.items()))
    kept.pop("no_number_at_step", None)
    if not done and not checkpoints.keep_finite(folder):
        # The model that was kept is all that is left.
        done = _kept_row(read_history(folder), report["recipe"]["keep"])["epoch"]
    at = f"epoch {done}" if done else f"step {checkpoints.newest(folder)['step']}"
    changes = {name.partition(".")[2]: pair for name, pair in changed.items()}
    kept["recipe"] = recipe
    kept["changed"] = [*report.get("changed", []), {"after": at, **changes}]
    return kept | ({"restarted_after": done} if done else {})


def _start_of(
    folder: pathlib.Path, report: dict[str, Any], steps_per_epoch: int
) -> dict[str, Any]:
    """Where a run goes on: the notes of its newest checkpoint, or made of its files.

    Of a run that had ended and gets more epochs there is no checkpoint at first: it goes
    on from its best model, as `restarted_after` epochs of `history.csv` left it.

    Args:
        folder: The run's folder.
        report: What `_open_folder` gave.
        steps_per_epoch: Steps of an epoch.
    """
    if notes := checkpoints.newest(folder):
        most = report["recipe"]["epochs"] * steps_per_epoch
        if not 0 <= notes["step"] <= most:
            raise ValueError(
                f"'{folder}' has a checkpoint of step {notes['step']}, and the run has "
                f"{most} steps: it is of another run."
            )
        return notes
    epochs = report.get("restarted_after", 0)
    rows = read_history(folder)[:epochs] if epochs else []
    if not rows:
        return {"step": 0, "history": []}
    best = _kept_row(rows, report["recipe"]["keep"])
    score = best["val_accuracy"], -best["val_loss"]
    return {
        "step": epochs * steps_per_epoch,
        "history": rows,
        "best": {"epoch": best["epoch"], "score": score},
        "restarts": True,
    }


def _note_no_number(folder: pathlib.Path, step: int) -> None:
    """Notes at which step the loss was no number, which another rate may mend."""
    write_json(folder / "run.json", read_report(folder) | {"no_number_at_step": step})


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _leave_what_was_finished(folder: pathlib.Path) -> None:
    """After an interruption: curves of the finished epochs, or no folder at all."""
    if (folder / "model.keras").exists():
        rows = read_history(folder)
        columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
        pictures.draw_curves(columns, folder / "curves.png")
        return
    if not checkpoints.newest(folder):
        checkpoints.remove(folder)
        for name in ("history.csv", TRAINING_PAGE, "run.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "logs", ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _kept_row(rows: list[dict[str, float]], keep: str) -> dict[str, float]:
    """The row of the epoch whose model was kept."""
    finite = [row for row in rows if np.isfinite(row["val_loss"])]
    if keep == "last":
        return finite[-1]
    return max(finite, key=lambda row: (row["val_accuracy"], -row["val_loss"]))


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
        pace: Speed, waiting, memory and seconds of the training, and its warnings.
    """
    pictures.draw_curves(history, folder / "curves.png")
    pictures.draw_confusion(evaluation, folder / "confusion.png")
    draw_test_page(data.test, evaluation, folder / "predictions.png")
    settings = read_report(folder)
    figures = {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "val_top1": history["val_accuracy"][best_epoch - 1],
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch,
    }
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    # Last: a run without top-1 is not finished.
    write_json(
        folder / "run.json", {**settings, **figures, **pace, "versions": versions}
    )
