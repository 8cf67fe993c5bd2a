"""The whole state of a training run, in folders that are there completely or not at all.

What the next step depends on is stored: weights, the states of random layers, the
optimizer with its moving average, metrics half way through an epoch, the best score and
the history so far. Nothing of the data is: its order follows from seed and step.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
from typing import Any

import keras
import numpy as np
from keras_vit_device.files import sync, whole_file
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

# The newest is enough to go on; the one before is there if its files are damaged.
KEPT = 2
_FOLDER = "checkpoints"
# Of every epoch.
_FIGURES = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
_STATE, _NOTES, _BEST = "state.safetensors", "notes.json", "model.keras"


def save(
    run: pathlib.Path,
    model: keras.Model,
    step: int,
    notes: dict[str, Any],
    best: pathlib.Path | None = None,
    write: bool = True,
) -> None:
    """Writes a checkpoint and removes old ones.

    A kill at any moment, or a full disk, leaves those before it as they were.

    Args:
        run: The run's folder.
        model: Compiled, its optimizer built.
        step: Number of steps done.
        notes: What else is to be known again; JSON types.
        best: The best model's file, if there is one by now.
        write: Whether this worker writes. Those that don't must call this too: the
            metrics are added up over all of them.

    Raises:
        OSError: If it can't be written.
    """
    arrays = _arrays(model)
    if not write:
        return
    folder = _folder(run, step)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file(arrays, partial / _STATE)
        (partial / _NOTES).write_text(json.dumps({"step": step, **notes}))
        if best and best.exists():
            _link(best, partial / _BEST)
        for name in (_STATE, _NOTES):
            sync(partial / name)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except SafetensorError as error:
        raise OSError(f"'{partial}' can't be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    # Those of later steps are damaged, or the run would have gone on from there.
    kept = [other for other in _all(run) if other <= folder][-KEPT:]
    for other in _all(run):
        if other not in kept:
            shutil.rmtree(other)


def newest(run: pathlib.Path) -> dict[str, Any] | None:
    """The notes of the newest checkpoint that is whole, or `None` if there is none."""
    return next(filter(None, map(_notes, reversed(_all(run)))), None)


def keep_finite(run: pathlib.Path) -> bool:
    """Removes checkpoints that are damaged or hold a number that is none.

    Returns:
        Whether one is left.
    """
    for folder in _all(run):
        if _notes(folder) is None or not all(
            np.isfinite(array).all() for array in load_file(folder / _STATE).values()
        ):
            shutil.rmtree(folder)
    return bool(_all(run))


def list_damaged(run: pathlib.Path) -> list[pathlib.Path]:
    """Those after the newest whole one: cut off, or a part of them is missing."""
    return list(itertools.takewhile(lambda it: _notes(it) is None, reversed(_all(run))))


def _notes(folder: pathlib.Path) -> dict[str, Any] | None:
    with (
        contextlib.suppress(OSError, ValueError, RecursionError, SafetensorError),
        safe_open(folder / _STATE, "numpy"),  # reads its header and its length
    ):
        notes = json.loads((folder / _NOTES).read_text())
        if _are_notes(notes) and _folder(folder.parent.parent, notes["step"]) == folder:
            return notes
    return None


def _are_notes(found: Any) -> bool:
    """Whether they are what `save` may have written, a step's number above all."""
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        return False
    history, best = found.get("history", []), found.get("best", {})
    if not isinstance(history, list) or not isinstance(best, dict):
        return False
    score = best.get("score") or []  # none before the first epoch has ended
    if not isinstance(score, list) or not all(isinstance(it, dict) for it in history):
        return False
    if not all(_FIGURES <= row.keys() for row in history):
        return False
    rows = (row.values() for row in history)
    numbers = itertools.chain([best.get("epoch", 0)], score, *rows)
    return best.keys() <= {"epoch", "score"} and all(
        isinstance(number, int | float) for number in numbers
    )


def restore(
    run: pathlib.Path, step: int, model: keras.Model, best: pathlib.Path | None = None
) -> None:
    """Gives a model, its optimizer and its metrics the state of a checkpoint.

    Args:
        run: The run's folder.
        step: Of the checkpoint, as `newest` says.
        model: Compiled, its optimizer built.
        best: Where the best model's file of that time goes, if there was one: an epoch
            that was lost may have replaced it.

    Raises:
        ValueError: If the checkpoint is of another model or optimizer.
    """
    folder = _folder(run, step)
    stored = load_file(folder / _STATE)
    variables = _variables(model)
    given = {name: tuple(v.shape) for name, v in variables.items()}
    if given != {name: value.shape for name, value in stored.items()}:
        raise ValueError(f"The checkpoint in '{run}' is of another model or optimizer.")
    for name, variable in variables.items():
        variable.assign(stored[name])
    if best and (folder / _BEST).exists():
        with whole_file(best) as partial:
            shutil.copyfile(folder / _BEST, partial)


def _link(path: pathlib.Path, to: pathlib.Path) -> None:
    """The same file under another name; files of runs are replaced, never changed."""
    try:
        os.link(path, to)
    except OSError:  # not every file system can
        shutil.copyfile(path, to)


def remove(run: pathlib.Path) -> None:
    """Removes all checkpoints of a run."""
    shutil.rmtree(run / _FOLDER, ignore_errors=True)


def _folder(run: pathlib.Path, step: int) -> pathlib.Path:
    return run / _FOLDER / f"step-{step:09d}"


def _all(run: pathlib.Path) -> list[pathlib.Path]:
    return sorted((run / _FOLDER).glob("step-*"))


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: np.array(v.numpy()) for name, v in _variables(model).items()}


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All that a training step reads and changes, each under a name of its own.

    By place: paths have numbers in them that count the models of a process.
    """
    groups = {
        "model": model.variables,  # with the states of dropout
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }
    return {
        f"{group} {index:05d}": variable
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }
