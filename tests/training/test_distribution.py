"""Two processes train as one would, and know when one of them is gone."""

import csv
import dataclasses
import json
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit.data import find_source
from keras_vit.training import callbacks
from keras_vit.training.hosts import cluster, distribution
from keras_vit.training.runs import run as runs
from keras_vit.training.runs.settings import is_finished
from tests import processes
from tests.conftest import pictures_off, split_at
from tests.training.test_cluster import free_ports

EPOCHS = 3


def work(folder, kind, task, *, silence=3.0, patience=120.0, killed_at=0, slow_end=0.0):
    """What each worker does; `"two"` is two replicas in one process."""
    if task:
        os.environ["TF_CONFIG"] = task
    cluster.SILENCE = silence
    if kind == "two":
        strategy = two_devices()
    else:
        strategy = distribution.make_strategy("auto", patience)
    if killed_at:
        die_at(killed_at)
    finish = runs.finish
    runs.finish = lambda *given: (time.sleep(slow_end), finish(*given))
    train(folder, strategy)
    # A worker that ended well is not started again, so nobody does before the job has.
    assert is_finished(folder)


def two_devices():
    """Two replicas on one processor."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])


def die_at(step):
    """Ends this process without a word when that step is done."""
    ended = callbacks.Progress.on_train_batch_end

    def killed(self, *arguments, **options):
        ended(self, *arguments, **options)
        if self.done == step:
            os._exit(9)

    callbacks.Progress.on_train_batch_end = killed


def train(folder, strategy):
    """A tiny student and its teacher on the digits; clipped by the norm of all."""
    keras.utils.set_random_seed(0)
    sizes = {"width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 12, "num_classes": 10}
    config = keras_vit.ViTConfig(image_size=8, channels=1, patch_size=4, **sizes)
    teacher = keras_vit.build_vit(config)
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    config = dataclasses.replace(config, **tokens)
    with strategy.scope():
        model = keras_vit.build_vit(config)
    with pictures_off():
        keras_vit.train(
            model,
            find_source("digits").load(config, batch_size=128),
            keras_vit.TrainingRecipe(epochs=EPOCHS, translation=0.0, clip_norm=0.5),
            output=folder,
            teacher=teacher,
            resume=(folder / "run.json").exists(),
            checkpoint_steps=3,
            verbose=0,
        )


def start(folder, kind, worker=None, ports=(), **options):
    """A process that works."""
    task = ""
    if worker is not None:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        named = {"type": "worker", "index": worker}
        task = json.dumps({"cluster": {"worker": addresses}, "task": named})
    return processes.start(work, folder, kind, task, **options)


def ended(process, timeout=240):
    """Its exit status and what it said."""
    status = processes.finished(process, timeout)
    return status, process.said.read_text()


def history(folder):
    """Figures of each epoch, `(epochs, columns)`."""
    with open(folder / "history.csv", newline="") as file:
        return np.array([list(map(float, row)) for row in list(csv.reader(file))[1:]])


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    """The history of two replicas in one process."""
    folder = tmp_path_factory.mktemp("two") / "run"
    status, said = ended(start(folder, "two"))
    assert status == 0, said
    return history(folder)


def test_two_workers_train_as_two_replicas_do(two_replicas, tmp_path):
    ports = free_ports(2)
    workers = [
        start(tmp_path / "run", "workers", i, ports, slow_end=2.0) for i in range(2)
    ]
    for status, said in map(ended, workers):
        assert status == 0, said
    found = history(tmp_path / "run")
    assert found.shape == two_replicas.shape == (EPOCHS, 5)
    np.testing.assert_allclose(found, two_replicas, rtol=1e-5)
    assert json.loads((tmp_path / "run/run.json").read_text())["top1"] > 0


def train_unevenly():
    """Of two devices one validates three images and the other four."""
    strategy = two_devices()
    config = keras_vit.ViTConfig(
        image_size=8,
        channels=1,
        patch_size=4,
        width=8,
        depth=1,
        num_heads=2,
        mlp_dim=12,
        num_classes=2,
    )
    images = np.zeros((16, 8, 8, 1), "uint8")
    source = split_at(images, 8, 15)
    recipe = keras_vit.TrainingRecipe(epochs=1)
    with strategy.scope():
        model = keras_vit.build_vit(config)
    with pytest.raises(ValueError, match="multiple of the 2 devices. Received: 3"):
        keras_vit.train(model, source.load(config, batch_size=3), recipe)
    run = keras_vit.train(model, source.load(config, batch_size=8), recipe, verbose=0)
    logits = model.predict(images[8:15], verbose=0)
    accuracy = np.mean(logits.argmax(axis=1) == np.arange(8, 15) % 2)
    np.testing.assert_allclose(run.history["val_accuracy"], accuracy, rtol=1e-6)


def test_devices_take_equal_parts_of_training_but_not_of_validation():
    assert processes.finished(processes.start(train_unevenly)) == 0


def test_a_job_whose_worker_is_killed_goes_on_when_all_are_started_again(
    two_replicas, tmp_path
):
    folder, killed_at = tmp_path / "run", [0, 15]  # of step 14 is a checkpoint
    for attempt in range(3):  # what a supervisor does
        ports = free_ports(2)
        workers = [
            start(folder, "workers", i, ports, killed_at=killed_at[i]) for i in range(2)
        ]
        outcomes = [ended(worker) for worker in workers]
        gone = outcomes[1][0]
        if all(status == 0 for status, _ in outcomes):
            break
        assert attempt == 0 and gone == 9, outcomes
        status, said = outcomes[0]
        assert status == cluster.WORKER_LOST, said
        line = said.splitlines()[-1]
        assert f"Worker 1 (127.0.0.1:{ports[1]}) stopped answering 3 sec" in line
        assert "top1" not in json.loads((folder / "run.json").read_text())
        killed_at = [0, 0]
    assert attempt == 1
    np.testing.assert_allclose(history(folder), two_replicas, rtol=1e-5)


def test_workers_that_never_come_are_named(tmp_path):
    ports = free_ports(2)
    process = start(tmp_path / "run", "workers", 0, ports, patience=2.0)
    status, said = ended(process, timeout=60)
    assert status == 1  # the command line makes it 2 and one line
    line = said.splitlines()[-1]
    assert line.endswith(
        f"Worker 1 (127.0.0.1:{ports[1]}) never answered in 2 seconds."
    )
    assert not (tmp_path / "run").exists()


def test_each_training_of_a_process_is_watched(monkeypatch):
    calls = []

    class Recorded:
        def __init__(self, cluster):
            calls.append(cluster.addresses)

        def start(self):
            calls.append("start")

        def stop(self):
            calls.append("stop")

    task = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker"}}
    task["task"]["index"] = 0
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    monkeypatch.setattr(distribution, "Watchdog", Recorded)
    monkeypatch.setattr(distribution, "worker_of", lambda _: (0, 2))
    monkeypatch.setattr(
        distribution, "_sum_over_workers", lambda *_: calls.append("all are there")
    )
    for _ in range(2):
        with distribution.end_together(None):
            calls.append("train")
    once = [("a:1", "b:2"), "start", "train", "all are there", "stop"]
    assert calls == once * 2


def test_strategies_are_chosen_by_name(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="mirrored, multiworker"):
        distribution.make_strategy("miror")
    with pytest.raises(ValueError, match="needs TF_CONFIG"):
        distribution.make_strategy("multiworker")
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1
    mirrored = distribution.make_strategy("mirrored")
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
