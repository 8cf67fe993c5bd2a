"""Folders of runs that somebody changed, and several processes at one of them."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import sys
import time
from unittest import mock

import numpy as np
import pytest

from keras_vit.training.callbacks import Checkpoints
from keras_vit.training.plan import plan_again
from keras_vit.training.runs.run import Run
from keras_vit.training.runs.settings import check_more_epochs, read_settings
from tests.conftest import split_at
from tests.hostile.archives import VALUES, changed_json
from tests.hostile.damage import mutated
from tests.hostile.saying import refusal
from tests.training.test_resume import Killed, run

STEPS = 7  # an epoch of `run`
FEW = {"epochs": 4, "every": 3}


def begin(folder: pathlib.Path) -> pathlib.Path:
    """A run that was killed in its second epoch."""
    original = Checkpoints.on_train_batch_end

    def stop(self, *given, **more):
        original(self, *given, **more)
        if self.progress.done == STEPS + 4:
            raise Killed

    with (
        mock.patch.object(Checkpoints, "on_train_batch_end", stop),
        pytest.raises(Killed),
    ):
        run(folder, **FEW)
    return folder


def go_on(folder, source):
    """What resuming reads, up to the first step."""
    stored = read_settings(folder)
    check_more_epochs(folder, stored, None)
    plan = plan_again(source, stored)
    given = {"config": plan.config, "recipe": plan.recipe}
    settings = {name: dataclasses.asdict(it) for name, it in given.items()}
    settings |= {"batch_size": plan.batch_size, "precision": plan.precision}
    settings |= {"seed": plan.seed, "dataset": stored["dataset"]}
    with Run.open(folder, settings, True, True) as found:
        return found.start(STEPS)


def source():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3))
    return split_at(pixels.astype("uint8"), 28, 38)


def _change(folder: pathlib.Path, rng: random.Random) -> None:
    """One file of a run's folder, or its place."""
    files = sorted(it for it in folder.rglob("*") if it.is_file())
    path = rng.choice(files)
    kind = rng.randrange(8)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(mutated(path.read_bytes() or b"x", rng))
    elif kind == 2:
        step = rng.choice(sorted((folder / "checkpoints").iterdir()))
        named = f"step-{rng.choice((0, 1, 8, 28, 29, 10**12)):09d}"
        if not (
            moved := step.with_name(rng.choice((named, "step-x", "step-")))
        ).exists():
            step.rename(moved)
    elif texts := [it for it in files if it.suffix == ".json"]:
        path = rng.choice(texts)
        try:
            content = changed_json(json.loads(path.read_bytes()), rng, VALUES)
        except (ValueError, TypeError, RecursionError):  # changed before
            return
        path.write_text(json.dumps(content))


def resume(rng: random.Random, shared: pathlib.Path) -> str:
    """Goes on, or refuses in a line and leaves all files as they are."""
    folder = pathlib.Path("run").absolute()
    shutil.copytree(shared, folder)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(folder, rng)
    held = {it: it.read_bytes() for it in folder.rglob("*") if it.is_file()}
    found = {}
    reason = refusal(lambda: found.update(go_on(folder, source())))
    assert bool(reason) != bool(found)
    assert held == {it: it.read_bytes() for it in folder.rglob("*") if it.is_file()}
    if rng.random() < 0.1:  # the rest of it, which takes seconds
        late = refusal(lambda: run(folder, resume=True, **FEW))
        assert late or not reason, (reason, late)
        return "refused" if late else "finished"
    return "refused" if reason else "goes on"


def race(rng: random.Random) -> str:
    """Several processes open one run at about the same time: one writes at a time."""
    folder = pathlib.Path("run").absolute()
    log = os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    waits = [
        [rng.random() / 100 for _ in range(2)] for _ in range(rng.choice((2, 3, 5)))
    ]
    kills = [rng.random() < 0.2 for _ in waits]
    children = []
    for (before, within), killed in zip(waits, kills, strict=True):
        if (child := os.fork()) == 0:
            time.sleep(before)
            os._exit(_write(folder, log, within, killed))
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(it, 0)[1]) for it in children]
    lines = pathlib.Path("log").read_text().splitlines()
    assert lines[::2] == ["begin"] * (len(lines) // 2), lines
    assert set(ended) <= {0, 2, 9} and len(lines) == 2 * (len(ended) - ended.count(2))
    return "all" if 2 not in ended else "refused"


def _write(folder: pathlib.Path, log: int, seconds: float, killed: bool) -> int:
    try:
        with Run.open(folder, {}, False, True):
            os.write(log, b"begin\n")
            time.sleep(seconds)
            os.write(log, b"end\n")
            if killed:
                os._exit(9)  # as if by a signal: nothing gives the lock back
            for path in folder.iterdir():  # as it would be new for the next
                path.unlink()
    except ValueError as error:
        refused = "is being written by another process" in str(error)
        return 2 if refused or "already holds" in str(error) else 1
    except BaseException as error:  # noqa: BLE001
        sys.stderr.write(repr(error))
        return 1
    return 0
