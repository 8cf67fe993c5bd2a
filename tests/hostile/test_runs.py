"""A run's folder that somebody changed, or another process is writing: one line."""

import fcntl
import json
import os
from unittest import mock

import pytest

from keras_vit.training.runs import checkpoints
from keras_vit.training.runs.settings import read_history
from tests.hostile.archives import VALUES, places, replaced
from tests.hostile.runs import FEW, STEPS, begin, go_on, source
from tests.training.test_resume import run


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = begin(tmp_path_factory.mktemp("begun") / "run")
    assert checkpoints.newest(folder)["step"] == STEPS + 3
    return folder


def changed(content):
    """Copies of what JSON held, each with another value at one place, or one less."""
    for path in places(content):
        for value in (*VALUES, ...):
            yield path, value, replaced(content, path, value)


@pytest.mark.parametrize(("file", "count"), [("run.json", 700), ("notes.json", 200)])
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_a_line(file, count, begun):
    expected = go_on(begun, source())
    (path,) = [*begun.rglob(f"step-*{STEPS + 3}/{file}"), *begun.glob(file)]
    whole, tried, names = path.read_text(), 0, {*begun.rglob("*")}
    try:
        for place, value, content in changed(json.loads(whole)):
            path.write_text(json.dumps(content))
            tried += 1
            try:
                # Damaged notes are passed over, for those of the checkpoint before.
                assert go_on(begun, source())["step"] <= expected["step"]
            except ValueError as error:
                assert str(error) and len(str(error).splitlines()) == 1, (place, value)
            except Exception as error:
                raise AssertionError(f"{place} {value!r}: {error!r}") from error
    finally:
        path.write_text(whole)
    assert tried > count
    assert go_on(begun, source()) == expected
    assert names == {*begun.rglob("*")}


@pytest.mark.parametrize(
    "cells", ["", "x", "1,2", '"', "nan,nan,nan", "\0", "1\x1b[2J"]
)
def test_a_history_that_was_changed_is_refused_in_a_line(cells, tmp_path):
    (tmp_path / "history.csv").write_text(f"epoch,loss\n{cells},\n")
    with pytest.raises(ValueError, match=r"history\.csv' is damaged") as error:
        read_history(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("step", [10**12, 4 * STEPS + 1])
def test_a_step_that_the_run_does_not_have_ends_nothing(step, begun):
    newest = begun / f"checkpoints/step-{STEPS + 3:09d}"
    moved = begun / f"checkpoints/step-{step:09d}"
    newest.rename(moved)
    notes = (moved / "notes.json").read_text()
    (moved / "notes.json").write_text(json.dumps(json.loads(notes) | {"step": step}))
    try:
        with pytest.raises(ValueError, match=f"a checkpoint of step {step}, and the"):
            go_on(begun, source())
    finally:
        (moved / "notes.json").write_text(notes)
        moved.rename(newest)


@pytest.mark.parametrize("resume", [True, False])
def test_two_processes_do_not_write_one_run(resume, begun, tmp_path):
    folder = begun if resume else tmp_path / "new"
    folder.mkdir(exist_ok=True)
    held = {it: it.read_bytes() for it in folder.rglob("*") if it.is_file()}
    other = os.open(folder, os.O_RDONLY)  # as of another process
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is being written by another process"):
            run(folder, resume=resume, **FEW)
    finally:
        os.close(other)
    assert held == {it: it.read_bytes() for it in folder.rglob("*") if it.is_file()}


def test_a_run_that_failed_may_be_gone_on_with_in_the_same_process(tmp_path):
    folder = tmp_path / "run"
    with mock.patch("keras_vit.training.loop._fit", side_effect=MemoryError):
        for _ in range(2):
            with pytest.raises(MemoryError):
                run(folder, **FEW)
    assert not folder.exists()
