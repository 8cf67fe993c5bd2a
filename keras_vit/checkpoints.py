"""The whole state of a training run, in folders that are there completely or not at all.

What the next step depends on is stored: weights, the states of random layers, the
optimizer with its moving average, metrics half way through an epoch, the best score and
the history so far. Nothing of the data is: its order follows from seed and step.
"""

import json
import pathlib
import shutil
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file, save_file

# The newest is enough to go on; the one before is there if its files are damaged.
KEPT = 2
_FOLDER = "checkpoints"


def save(
    run: pathlib.Path,
    model: keras.Model,
    step: int,
    notes: dict[str, Any],
    write: bool = True,
) -> None:
    """Writes a checkpoint and removes old ones.

    A kill at any moment, or a full disk, leaves those before it as they were.

    Args:
        run: The run's folder.
        model: Compiled, its optimizer built.
        step: Number of steps done.
        notes: What else is to be known again; JSON types.
        write: Whether this worker writes. Those that don't must call this too: the
            metrics are added up over all of them.
    """
    arrays = _arrays(model)
    if not write:
        return
    folder = run / _FOLDER / f"step-{step:09d}"
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(arrays, partial / "state.safetensors")
    (partial / "notes.json").write_text(json.dumps({"step": step, **notes}))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    for old in _all(run)[:-KEPT]:
        shutil.rmtree(old)


def newest(run: pathlib.Path) -> dict[str, Any] | None:
    """The notes of the newest checkpoint, or `None` if there is none."""
    found = _all(run)
    return json.loads((found[-1] / "notes.json").read_text()) if found else None


def restore(run: pathlib.Path, model: keras.Model) -> None:
    """Gives a model, its optimizer and its metrics the state of the newest checkpoint.

    Raises:
        ValueError: If the checkpoint is of another model or optimizer.
    """
    stored = load_file(_all(run)[-1] / "state.safetensors")
    variables = _variables(model)
    given = {name: tuple(v.shape) for name, v in variables.items()}
    if given != {name: value.shape for name, value in stored.items()}:
        raise ValueError(f"The checkpoint in '{run}' is of another model or optimizer.")
    for name, variable in variables.items():
        variable.assign(stored[name])


def remove(run: pathlib.Path) -> None:
    """Removes all checkpoints of a run."""
    shutil.rmtree(run / _FOLDER, ignore_errors=True)


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
