"""A run that has ended goes on: to more epochs, or with a lower rate after no number."""

import json
import shutil
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_vit.training.callbacks import Checkpoints, NoNumberError, Progress
from keras_vit.training.runs import settings
from tests.training.test_resume import (
    Killed,
    assert_same,
    assert_saved_is_best,
    outcome,
    run,
)

FEW = {"every": 0, "epochs": 2}
MORE = {**FEW, "epochs": 5}
STEPS = 7  # an epoch of `run`


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder, **FEW)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def longer(finished, tmp_path_factory):
    """The folder of that run, gone on to more epochs, and its learning rates."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    shutil.copytree(finished, folder)
    rates = []

    def noted(self, batch, logs=None):
        rates.append(float(self.model.optimizer.learning_rate))

    with mock.patch.object(Checkpoints, "on_train_batch_end", noted):
        run(folder, resume=True, **MORE)
    return folder, rates


def report_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_finished_run_goes_on_to_more_epochs(finished, longer):
    folder, rates = longer
    before = (finished / "history.csv").read_text()
    assert (folder / "history.csv").read_text().startswith(before)
    assert_saved_is_best(folder, rows=5)
    report = report_of(folder)
    assert report["epochs"] == report["recipe"]["epochs"] == 5
    assert report["restarted_after"] == 2
    assert report["changed"] == [{"after": "epoch 2", "epochs": [2, 5]}]
    assert not (folder / "checkpoints").exists()
    # The rate's course is that of the three epochs that came.
    assert len(rates) == 3 * STEPS
    assert np.argmax(rates) == round(0.1 * 3 * STEPS) - 1 and rates[-1] < rates[0]


@pytest.mark.parametrize("last", [2 * STEPS, 2 * STEPS + 3, 4 * STEPS + 2])
def test_killed_when_it_went_on_it_ends_as_if_it_was_not(last, longer, copied):
    """In the first epoch that is new, at its very beginning, and later."""
    names = ("on_epoch_begin", "on_train_batch_end")
    original = Checkpoints.on_epoch_begin

    def stop(self, *_, **__):
        if self.progress.done == last:
            raise Killed

    def begin(self, epoch, logs=None):
        stop(self)
        original(self, epoch, logs)

    hooks = dict(zip(names, (begin, stop), strict=True))
    with mock.patch.multiple(Checkpoints, **hooks), pytest.raises(Killed):
        run(copied, resume=True, **MORE)
    assert "top1" not in report_of(copied)
    run(copied, resume=True, **MORE)
    assert_same(copied, outcome(longer[0]))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_finished_run_of_no_more_epochs_stays_as_it_is(epochs, copied):
    before = report_of(copied)
    with pytest.raises(ValueError, match=f"more than its 2. Received: {epochs}"):
        run(copied, resume=True, **FEW | {"epochs": epochs})
    with pytest.raises(ValueError, match="other settings: seed was 5, is 6"):
        run(copied, resume=True, seed=6, **MORE)
    assert report_of(copied) == before


def end_by_no_number(folder, at, **options):
    count = Progress.on_train_batch_end

    def lost(self, batch, logs=None):
        count(self, batch, {"loss": float("nan") if self.done == at - 1 else 0.0})

    with (
        mock.patch.object(Progress, "on_train_batch_end", lost),
        pytest.raises(NoNumberError, match=f"at step {at}; a lower"),
    ):
        run(folder, **options)


def test_after_a_loss_that_was_no_number_a_lower_rate_goes_on(tmp_path):
    folder = tmp_path / "run"
    end_by_no_number(folder, at=2 * STEPS + 2, epochs=4, every=0)
    assert report_of(folder)["no_number_at_step"] == 2 * STEPS + 2
    rows = (folder / "history.csv").read_text()
    with pytest.raises(ValueError, match=r"settings: recipe\.flip was True, is False"):
        run(folder, resume=True, epochs=4, every=0, flip=False, learning_rate=1e-4)
    # The newest checkpoint holds a number that is none, so that before it is taken.
    state = folder / f"checkpoints/step-{2 * STEPS:09d}/state.safetensors"
    arrays = load_file(state)
    next(it for it in arrays.values() if it.dtype == np.float32).flat[0] = np.nan
    save_file(arrays, state)
    run(folder, resume=True, epochs=4, every=0, learning_rate=1e-4)
    report = report_of(folder)
    assert report["recipe"]["learning_rate"] == 1e-4 and report["epochs"] == 4
    assert "no_number_at_step" not in report
    [change] = report["changed"]
    assert change == {"after": f"step {STEPS}", "learning_rate": [3e-3, 1e-4]}
    first = rows.splitlines()[:2]
    assert (folder / "history.csv").read_text().splitlines()[:2] == first
    assert_saved_is_best(folder, rows=4)


def test_where_no_checkpoint_is_of_numbers_the_best_model_goes_on(tmp_path):
    folder = tmp_path / "run"
    end_by_no_number(folder, at=STEPS + 1, epochs=3, every=0)
    shutil.rmtree(folder / "checkpoints")
    run(folder, resume=True, epochs=3, every=0, learning_rate=1e-4)
    assert report_of(folder)["restarted_after"] == 1
    assert_saved_is_best(folder, rows=3)


def test_a_run_of_an_earlier_version_has_the_defaults_of_later_fields(tmp_path):
    run_json = {"dataset": "x", "config": {}, "recipe": {"epochs": 3}}
    (tmp_path / "run.json").write_text(json.dumps(run_json))
    recipe = settings.read_settings(tmp_path)["recipe"]
    assert recipe["passes"] == 1 and recipe["epochs"] == 3
