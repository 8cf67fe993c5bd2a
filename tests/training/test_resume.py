"""A run that was killed goes on and ends as one that never was, to the last bit."""

import csv
import json
import os
import pathlib
import pkgutil
import random
import shutil
import signal
import time
from unittest import mock

import keras
import numpy as np
import pytest
from keras_vit_device.files import whole_file
from safetensors import SafetensorError
from safetensors.numpy import save_file

import keras_vit
from keras_vit.training.callbacks import Checkpoints
from keras_vit.training.runs import checkpoints
from tests import processes
from tests.conftest import events_in, pictures_off, split_at, xla_off


def run(folder, **options):
    """As `run_compiled`, without XLA, as on several devices.

    Compiling takes longer than all else together.
    """
    with xla_off():
        return run_compiled(folder, **options)


def run_compiled(
    folder, *, resume=False, seed=5, epochs=8, every=2, validation=10, **changed
):
    """Trains a tiny model with dropout, averaged weights and random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 8, 8, 3)).astype("uint8")
    source = split_at(images, 28, 28 + validation)
    keras.utils.set_random_seed(seed)
    config = keras_vit.ViTConfig(
        image_size=8,
        patch_size=4,
        width=8,
        depth=1,
        num_heads=2,
        mlp_dim=12,
        num_classes=2,
        dropout=0.1,
    )
    recipe = keras_vit.TrainingRecipe(
        **{"epochs": epochs, "ema_momentum": 0.9, "flip": True, "mixup": 0.8} | changed
    )
    with pictures_off():
        return keras_vit.train(
            keras_vit.build_vit(config),
            source.load(config, batch_size=4, seed=seed),
            recipe,
            output=folder,
            seed=seed,
            resume=resume,
            checkpoint_steps=every,
            verbose=0,
        )


def outcome(folder):
    """Everything that must be the same: the weights, the history, the figures."""
    model = keras.saving.load_model(folder / "model.keras")
    report = json.loads((folder / "run.json").read_text())
    figures = {name: report[name] for name in ("top1", "val_top1", "best_epoch")}
    return model.get_weights(), (folder / "history.csv").read_bytes(), figures


def assert_same(folder, expected):
    weights, history, figures = outcome(folder)
    assert history == expected[1]
    assert figures == expected[2]
    for got, value in zip(weights, expected[0], strict=True):
        np.testing.assert_array_equal(got, value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


class Killed(BaseException):
    """As if the process ended here."""


def finish(folder, compiled=False, **options):
    """In a process of its own: to the end, from the newest checkpoint if there is one."""
    one = run_compiled if compiled else run
    one(folder, resume=(folder / "run.json").exists(), **options)


def run_until(folder, function, file, count):
    """In a process of its own: ends it where a function is given a file, by count."""
    original, calls = pkgutil.resolve_name(function), []

    def killed(*arguments, **options):
        calls.extend(
            it
            for it in arguments
            if isinstance(it, pathlib.Path) and it.name.startswith(file)
        )
        if len(calls) == count:
            os._exit(9)
        return original(*arguments, **options)

    mock.patch(function, killed).start()
    finish(folder)


def test_killed_at_each_step_of_writing_it_ends_as_if_it_was_not(whole, tmp_path):
    folder = tmp_path / "run"
    hooks = (
        ("keras_vit.training.runs.checkpoints.save_file", "state", 2),
        ("pathlib.Path.write_text", "notes", 2),
        ("pathlib.Path.rename", ".partial-step", 2),  # written, not in place yet
        ("pathlib.Path.write_text", ".partial-history", 2),
        ("pathlib.Path.replace", ".partial-history", 1),
        ("pathlib.Path.replace", ".partial-model", 2),  # the first puts it back
    )
    for hook in hooks:
        assert processes.finished(processes.start(run_until, folder, *hook)) == 9, hook
    assert processes.finished(processes.start(finish, folder)) == 0
    assert_same(folder, outcome(whole))


def kill_at_random(folder, longest, **options):
    """Five times, up to so many seconds after a new checkpoint; then to the end.

    Not from the newest checkpoint, which is cut off as by a power cut.
    """
    moments = random.Random(0)
    for _ in range(5):
        process = processes.start(finish, folder, **options)
        deadline = time.monotonic() + 100
        before = set(folder.glob("checkpoints/*"))
        while set(folder.glob("checkpoints/*")) <= before and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, longest))
        process.kill()
        status = processes.finished(process)
        assert status == -signal.SIGKILL, "it was done before the kill"
    *_, older, newest = sorted((folder / "checkpoints").glob("step-*"))
    os.truncate(newest / "state.safetensors", 1000)
    assert checkpoints.newest(folder)["step"] == int(older.name.removeprefix("step-"))
    assert processes.finished(processes.start(finish, folder, **options)) == 0


def test_killed_five_times_at_random_it_ends_as_if_it_was_not(whole, tmp_path):
    folder = tmp_path / "run"
    kill_at_random(folder, longest=0.05)  # some two epochs in all
    assert_same(folder, outcome(whole))
    assert_saved_is_best(folder, rows=8)
    assert not (folder / "checkpoints").exists()


@pytest.mark.long
def test_killed_five_times_at_random_a_compiled_run_ends_as_if_it_was_not(tmp_path):
    # Batches are all full: one of another shape is compiled by itself, in each process.
    options = {"epochs": 16, "validation": 8, "compiled": True}
    folder = tmp_path / "run"
    kill_at_random(folder, longest=0.3, **options)
    whole = processes.start(finish, tmp_path / "whole", **options)
    assert processes.finished(whole) == 0
    assert_same(folder, outcome(tmp_path / "whole"))
    assert_saved_is_best(folder, rows=16, validation=8, compiled=True)


def test_every_random_layer_goes_on_as_it_would_have(tiny, randomize, rng, tmp_path):
    names = ("", "attention_", "patch_", "head_")
    rates = {f"{name}dropout": 0.3 for name in names}
    model = randomize(keras_vit.build_vit(tiny(drop_path=0.5, **rates)))
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    images = rng.uniform(0, 255, (8, 8, 12, 3)).astype("float32")
    checkpoints.save(tmp_path, model, 1, notes={})
    first, second = (np.array(model(images, training=True)) for _ in range(2))
    assert (first != second).any()
    checkpoints.restore(tmp_path, 1, model)
    np.testing.assert_array_equal(model(images, training=True), first)


@pytest.fixture
def untrained(tiny):
    model = keras_vit.build_vit(tiny(depth=1))
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


def test_damaged_checkpoints_are_passed_over_and_replaced(untrained, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (7, 14, 21):
        checkpoints.save(tmp_path, untrained, step, notes={})
    assert [path.name for path in sorted(folder.iterdir())] == [
        "step-000000014",
        "step-000000021",
    ]
    (folder / "step-000000021/notes.json").write_text("")
    assert checkpoints.newest(tmp_path) == {"step": 14}
    assert checkpoints.list_damaged(tmp_path) == [folder / "step-000000021"]
    checkpoints.save(tmp_path, untrained, 18, notes={})
    assert checkpoints.newest(tmp_path) == {"step": 18}
    (folder / "step-000000014/notes.json").unlink()  # a kill while it was removed
    assert checkpoints.list_damaged(tmp_path) == []
    for path in folder.glob("*/state.safetensors"):
        os.truncate(path, 0)
    assert checkpoints.newest(tmp_path) is None


def test_the_disk_has_a_checkpoint_before_its_name(untrained, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(
        os, "fsync", lambda file: named.append(checkpoints.newest(tmp_path))
    )
    checkpoints.save(tmp_path, untrained, 1, notes={})
    assert named == [None, None] and checkpoints.newest(tmp_path)


def test_the_best_model_is_that_of_the_checkpoint_again(untrained, tmp_path):
    """Where a lost epoch, which may not come again bit by bit, had replaced it."""
    best = tmp_path / "model.keras"
    checkpoints.save(tmp_path, untrained, 1, {}, best)
    with whole_file(best) as partial:
        partial.write_text("first")
    checkpoints.save(tmp_path, untrained, 2, {}, best)
    with whole_file(best) as partial:
        partial.write_text("lost")
    checkpoints.restore(tmp_path, 1, untrained, best)  # there was none
    assert best.read_text() == "lost"
    checkpoints.restore(tmp_path, 2, untrained, best)
    assert best.read_text() == "first"


@pytest.mark.parametrize("step", [2, 4])
def test_a_full_disk_costs_the_newest_checkpoint(
    step, tmp_path, monkeypatch, uncompiled
):
    """And leaves nothing where it is the first."""

    def full(arrays, path):
        if f"{step:09d}" in str(path):
            raise SafetensorError("I/O error: No space left on device")
        save_file(arrays, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match=f"{step:09d}' can't be written: .*No space"):
        run(tmp_path / "run")
    if step == 2:
        assert not (tmp_path / "run").exists()
    else:
        assert os.listdir(tmp_path / "run/checkpoints") == ["step-000000002"]


# Without averaged weights and with a checkpoint an epoch, until two epochs in a row are
# no better.
EARLY = {"epochs": 60, "patience": 2, "ema_momentum": 0.0, "every": 0}


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory):
    """The folder of such a run, and the number of its epochs."""
    folder = tmp_path_factory.mktemp("ended_early") / "run"
    return folder, run(folder, **EARLY).best_epoch + 2


@pytest.fixture(scope="module")
def broken_off(ended_early, tmp_path_factory):
    """The folder of the same run, which ended in the middle of its last epoch."""
    folder = tmp_path_factory.mktemp("broken_off") / "run"
    last = 7 * (ended_early[1] - 1) + 3

    def stop(self, batch, logs=None):
        if self.progress.done == last:
            raise Killed

    with (
        mock.patch.object(Checkpoints, "on_train_batch_end", stop),
        pytest.raises(Killed),
    ):
        run(folder, **EARLY)
    assert checkpoints.newest(folder)["step"] == last - 3
    return folder


@pytest.fixture(scope="module")
def gone_on(broken_off, tmp_path_factory):
    """The folder of that run when it went on to its end, and its optimizer."""
    folder = tmp_path_factory.mktemp("gone_on") / "run"
    shutil.copytree(broken_off, folder)
    optimizers, restore = [], checkpoints.restore

    def noted(run, step, model, best):
        optimizers.append(model.optimizer)
        return restore(run, step, model, best)

    with mock.patch.object(checkpoints, "restore", noted):
        run(folder, resume=True, **EARLY)
    [optimizer] = optimizers
    return folder, optimizer


def test_a_run_of_other_settings_is_refused_and_they_are_named(broken_off):
    with pytest.raises(
        ValueError, match=r"recipe\.epochs was 60, is 7; seed was 5, is 6"
    ):
        run(broken_off, resume=True, seed=6, **EARLY | {"epochs": 7})


def test_what_can_not_be_resumed_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match="no run to resume"):
        run(tmp_path / "none", resume=True)
    with pytest.raises(ValueError, match="is finished"):
        run(whole, resume=True)
    with pytest.raises(ValueError, match="needs its folder"):
        run(None, resume=True)
    for content, said in (("", "no JSON"), ("[]", "not that of a training")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ValueError, match=f"run.json' is {said}"):
            run(tmp_path, resume=True)


def test_a_run_ends_early_where_it_does_not_get_better(ended_early, gone_on):
    """Also if it was broken off in its last epoch."""
    (expected, rows), (folder, _) = ended_early, gone_on
    assert rows < EARLY["epochs"]
    assert_same(folder, outcome(expected))
    assert_saved_is_best(folder, rows)


def test_a_run_that_goes_on_decays_what_it_did(gone_on):
    optimizer = gone_on[1]
    variables = optimizer._trainable_variables
    decayed = {v.name for v in variables if optimizer._use_weight_decay(v)}
    assert decayed == {"kernel"}


def test_a_run_that_goes_on_does_so_in_the_same_logs(gone_on):
    folder, _ = gone_on
    losses = events_in(folder / "logs/train")["loss"]
    with open(folder / "history.csv", newline="") as file:
        rows = [float(row["loss"]) for row in csv.DictReader(file)]
    curve = [losses[step].simple_value for step in range(1, len(rows) + 1)]
    np.testing.assert_allclose(curve, rows, rtol=1e-6)


def test_the_saved_model_evaluates_to_the_best_row_exactly(
    whole, ended_early, broken_off
):
    """With averaged weights and without, ended early, and broken off."""
    folder, rows = ended_early
    assert_saved_is_best(whole, rows=8)
    assert_saved_is_best(folder, rows)
    assert_saved_is_best(broken_off, rows - 1)


def assert_saved_is_best(folder, rows, validation=10, compiled=False):
    with open(folder / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) == rows
    scores = [(float(row["val_accuracy"]), -float(row["val_loss"])) for row in history]
    model = keras.saving.load_model(folder / "model.keras")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 8, 8, 3)).astype("float32")[28:][:validation]
    labels = np.eye(2)[np.arange(48) % 2][28:][:validation]
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1
        ),
        metrics=["accuracy"],
        jit_compile=compiled,  # as it was validated
    )
    loss, accuracy = model.evaluate(images, labels, batch_size=4, verbose=0)
    assert (accuracy, -loss) == max(scores)
