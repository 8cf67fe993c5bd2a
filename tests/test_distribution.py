"""Two processes train as one would, and know when one of them is gone."""

import concurrent.futures
import csv
import dataclasses
import json
import os
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_vit import distribution
from keras_vit.distribution import Cluster, Watchdog, read_cluster
from tests import processes
from tests.conftest import pictures_off

EPOCHS = 3


def work(
    folder, kind, cluster, *, silence=3.0, patience=120.0, killed_at=0, slow_end=0.0
):
    """What each worker does; `"two"` is two replicas in one process."""
    if cluster:
        os.environ["TF_CONFIG"] = cluster
    import keras

    import keras_vit
    from keras_vit import callbacks, runs
    from keras_vit import data as data_sets

    distribution.SILENCE = silence
    if kind == "two":
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, parts)
        strategy = tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])
    else:
        strategy = distribution.make_strategy("auto", patience)
    if killed_at:
        ended = callbacks.Progress.on_train_batch_end

        def killed(self, *arguments, **options):
            ended(self, *arguments, **options)
            if self.done == killed_at:
                os._exit(9)

        callbacks.Progress.on_train_batch_end = killed
    finish = runs.finish
    runs.finish = lambda *given: (time.sleep(slow_end), finish(*given))
    keras.utils.set_random_seed(0)
    config = keras_vit.ViTConfig(
        image_size=8,
        channels=1,
        patch_size=4,
        width=8,
        depth=1,
        num_heads=2,
        mlp_dim=12,
        num_classes=10,
    )
    teacher = keras_vit.build_vit(config)
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    config = dataclasses.replace(config, **tokens)
    data = data_sets.find_source("digits").load(config, batch_size=128)
    with strategy.scope():
        model = keras_vit.build_vit(config)
    # Clipping too, so that it is by the norm of all gradients together.
    recipe = keras_vit.TrainingRecipe(epochs=EPOCHS, translation=0.0, clip_norm=0.5)
    with pictures_off():
        keras_vit.train(
            model,
            data,
            recipe,
            output=folder,
            teacher=teacher,
            resume=(folder / "run.json").exists(),
            checkpoint_steps=3,
            verbose=0,
        )
    # A worker that ended well is not started again, so nobody does before the job has.
    assert runs.is_finished(folder)


def start(folder, kind, worker=None, ports=(), **options):
    """A process that works."""
    config = ""
    if worker is not None:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        task = {"type": "worker", "index": worker}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    return processes.start(work, folder, kind, config, **options)


def ended(process, timeout=240):
    """Its exit status and what it said."""
    status = processes.finished(process, timeout)
    return status, process.said.read_text()


def free_ports(count):
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


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
        assert status == distribution.WORKER_LOST, said
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


def test_a_watchdog_that_was_stopped_ends_nothing():
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    said, over = [], threading.Event()

    def end(line, status):
        said.append((line, status))
        over.set()

    def watch():
        watchdog = Watchdog(Cluster(("here:1", address), 0), silence=1.5, end=end)
        watchdog.start()
        return watchdog

    stopped, watching = watch(), watch()
    assert not over.wait(3), "it answers"
    stopped.stop()
    server.close()
    assert over.wait(10)
    stopped._thread.join(5)
    watching._thread.join(5)
    assert len(said) == 1
    assert f"Worker 1 ({address}) stopped answering" in said[0][0]


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
        with distribution.watched(None):
            calls.append("train")
    once = [("a:1", "b:2"), "start", "train", "all are there", "stop"]
    assert calls == once * 2


def test_a_worker_listens_at_both_kinds_of_address():
    if not socket.has_dualstack_ipv6():
        pytest.skip("This machine has no IPv6.")
    port, other = free_ports(2)
    waiting = Cluster((f"127.0.0.1:{port}", f"127.0.0.1:{other}"), 0)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        worker = pool.submit(distribution.wait_for_all, waiting, patience=3)
        missing = {f"127.0.0.1:{port}", f"[::1]:{port}"}
        while missing and not worker.done():
            missing = {it for it in missing if not distribution._answers(it)}
    assert not missing
    assert "never answered" in str(worker.exception())  # for lack of the other


def test_a_chief_comes_before_the_workers():
    cluster = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
    task = {"type": "worker", "index": "1"}
    found = read_cluster(json.dumps({"cluster": cluster, "task": task}))
    assert found == Cluster(("a:1", "b:2", "[::1]:3"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be like"),
        ("[]", "must be like"),
        ('{"cluster": {"worker": ["a:1"]}}', "must be like"),
        (
            '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "chief and",
        ),
        (
            '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
            "PORT",
        ),
        (
            '{"cluster": {"worker": ["a:65536"]}, "task": {"type": "worker", "index": 0}}',
            "PORT",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "names 1 of type 'worker'",
        ),
    ],
)
def test_a_wrong_tf_config_is_refused(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        distribution.make_strategy("multiworker")


def test_strategies_are_chosen_by_name(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="mirrored, multiworker"):
        distribution.make_strategy("miror")
    with pytest.raises(ValueError, match="needs TF_CONFIG"):
        distribution.make_strategy("multiworker")
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1
    mirrored = distribution.make_strategy("mirrored")
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
