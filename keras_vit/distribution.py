"""Training on several GPUs and on several hosts, and what Keras needs for it.

Every worker of a cluster runs the same program; `TF_CONFIG` tells them apart:

    {"cluster": {"worker": ["host0:12345", "host1:12345"]},
     "task": {"type": "worker", "index": 0}}
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from keras_vit.config import check_choice

STRATEGIES = ("auto", "mirrored", "multiworker")
# Seconds. A worker that answered and falls silent for this long is taken for dead.
SILENCE = 10.0
# How long workers are waited for at the start.
PATIENCE = 300.0
# Exit status after another worker stopped answering.
WORKER_LOST = 4


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts that train together.

    Attributes:
        addresses: `host:port` of each worker; the first one writes the files.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def others(self) -> dict[int, str]:
        """Addresses of all workers but this one, by index."""
        numbered = enumerate(self.addresses)
        return {i: address for i, address in numbered if i != self.index}


def read_cluster(text: str) -> Cluster:
    """Reads `TF_CONFIG`.

    Raises:
        ValueError: If it is no JSON, or names no workers, or not this one.
    """
    try:
        content = json.loads(text)
        workers = content["cluster"]
        addresses = (*workers.get("chief", ()), *workers.get("worker", ()))
        kind, index = content["task"]["type"], int(content["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            'TF_CONFIG must be like {"cluster": {"worker": ["HOST:PORT", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}. {error!r} in: {text[:200]}'
        ) from error
    if set(workers) - {"chief", "worker"} or kind not in workers:
        raise ValueError(
            "TF_CONFIG may name a chief and workers, of which this is one. Received: "
            f"{', '.join(workers)} and a task of type {kind!r}"
        )
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(
                f"TF_CONFIG must name each worker HOST:PORT. Received: {address!r}"
            )
    if not 0 <= index < len(workers[kind]):
        raise ValueError(
            f"TF_CONFIG names {len(workers[kind])} of type {kind!r}. Received: "
            f"index={index}"
        )
    return Cluster(addresses, _place(workers, kind, index))


def _place(workers: dict[str, list[str]], kind: str, index: int) -> int:
    """Which worker of all it is: a chief comes before them."""
    return index + (len(workers.get("chief", ())) if kind == "worker" else 0)


def wait_for_all(cluster: Cluster, patience: float = PATIENCE) -> None:
    """Waits until every worker answers at its address, as this one does meanwhile.

    TensorFlow would wait too, without end and without a word about whom for.

    Raises:
        ValueError: If some never answered, or this worker can't have its own address.
    """
    own = cluster.addresses[cluster.index].rpartition(":")[2]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(
            ("", int(own)), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise ValueError(
            f"Worker {cluster.index} can't listen at port {own}: {error.strerror}."
        ) from error
    with server:
        absent = cluster.others
        deadline = time.monotonic() + patience
        while absent:
            absent = {i: it for i, it in absent.items() if not _answers(it)}
            if absent and time.monotonic() > deadline:
                raise ValueError(
                    f"{_named(absent)} never answered in {patience:g} seconds."
                )
            time.sleep(0.2 if absent else 0)


class Watchdog:
    """Ends this process with a line that names the worker which is gone.

    Without it, the others would wait for a dead worker, for minutes or for ever. It
    opens and closes a connection to each of them once a second.

    Args:
        cluster: Who is to be watched.
        silence: Seconds without an answer after which a worker is taken for dead;
            `SILENCE` if `None`.
        end: What to do with the line and the exit status.
    """

    def __init__(
        self,
        cluster: Cluster,
        silence: float | None = None,
        end: Callable[[str, int], None] | None = None,
    ):
        self.silence = SILENCE if silence is None else silence
        self._others = cluster.others
        self._heard: dict[int, float] = {}
        self._stopped = threading.Event()
        try:
            # A copy: it may be redirected later.
            self._terminal = os.dup(sys.stderr.fileno())
        except (AttributeError, OSError):
            self._terminal = 2
        self._end = end or self._exit
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching; who goes now has finished."""
        self._stopped.set()

    def wait(self) -> None:
        """Gives it the time to find out who is gone, after something failed."""
        self._thread.join(self.silence + 5)

    def _watch(self) -> None:
        self._heard = dict.fromkeys(self._others, time.monotonic())
        while not self._stopped.wait(1.0):
            for index, address in self._others.items():
                if _answers(address):
                    self._heard[index] = time.monotonic()
            now = time.monotonic()
            gone = {
                index: self._others[index]
                for index, heard in self._heard.items()
                if now - heard > self.silence
            }
            if gone and not self._stopped.is_set():
                line = (
                    f"{_named(gone)} stopped answering {self.silence:g} seconds ago. "
                    "Start all workers again to go on from the newest checkpoint."
                )
                return self._end(line, WORKER_LOST)
        return None

    def _exit(self, line: str, status: int) -> None:
        # Nothing softer ends a process that waits in a collective operation.
        os.write(self._terminal, f"keras-vit: {line}\n".encode())
        os._exit(status)


def _named(workers: dict[int, str]) -> str:
    named = ", ".join(f"{index} ({address})" for index, address in workers.items())
    return f"Worker {named}" if len(workers) == 1 else f"Workers {named}"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


_watchdog: Watchdog | None = None  # a process is in one cluster


def make_strategy(
    name: str = "auto", patience: float = PATIENCE
) -> tf.distribute.Strategy:
    """The strategy to build a model under, before anything else is done.

    Args:
        name: `"mirrored"` for all GPUs of this host; `"multiworker"` for the hosts in
            `TF_CONFIG`, all GPUs of each; `"auto"` for several hosts if `TF_CONFIG` is
            set, else for several GPUs if there are any, else for one device.
        patience: Seconds to wait for the other hosts. When one of them goes later,
            this process ends with a line that names it.

    Raises:
        ValueError: If the name is unknown, `TF_CONFIG` can't be read, a host doesn't
            come, or TensorFlow was used before.
    """
    global _watchdog
    check_choice("strategy", name, STRATEGIES)
    config = os.environ.get("TF_CONFIG", "")
    if name == "auto" and config:
        name = "multiworker"
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        name = "mirrored" if several else "none"
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if not config:
        raise ValueError("The multiworker strategy needs TF_CONFIG to be set.")
    cluster = read_cluster(config)
    if len(cluster.addresses) > 1:
        wait_for_all(cluster, patience)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        if "startup" not in str(error):
            raise
        raise ValueError(
            "make_strategy must come before all else that uses TensorFlow, seeds too."
        ) from error
    if len(cluster.addresses) > 1:
        _watchdog = Watchdog(cluster)
        _watchdog.start()
    return strategy


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    return worker_of(strategy)[0] == 0


def worker_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(index, count): which worker this process is, of how many."""
    if strategy.num_replicas_in_sync == 1:
        return 0, 1
    count = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    if count == 1 or resolver is None:
        return 0, 1
    workers = resolver.cluster_spec().as_dict()
    return _place(workers, resolver.task_type, resolver.task_id), count


def own_part(strategy: tf.distribute.Strategy, batches: tf.data.Dataset):
    """Of each batch what this worker is to see of it."""
    index, count = worker_of(strategy)
    if count == 1:
        return batches
    return batches.map(lambda *batch: tuple(part[index::count] for part in batch))


def distributed(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset, steps: int
) -> tf.distribute.DistributedDataset:
    """The batches of this worker, each cut into one part for each of its devices.

    Args:
        strategy: Says how many devices.
        batches: Tuples of tensors, images first.
        steps: Number of batches of a whole pass; what is left of one may be less.
    """
    count = len(strategy.extended.worker_devices)

    def parts(*batch):
        pieces = tf.nest.map_structure(
            lambda value: tf.split(
                value, _shares(tf.shape(value)[0], count), num=count
            ),
            batch,
        )
        # Concatenated shapes differ, so a data set for each piece.
        data_sets = [
            tf.data.Dataset.from_tensors(tuple(part[i] for part in pieces))
            for i in range(count)
        ]
        whole = data_sets[0]
        for other in data_sets[1:]:
            whole = whole.concatenate(other)
        return whole

    if count > 1:
        batches = batches.flat_map(parts)
    spread = strategy.distribute_datasets_from_function(lambda _: batches)
    # Keras would take the first pass for the length of all.
    spread._cardinality = steps
    return spread


def _shares(total, count: int):
    """Sizes of `count` parts that are as equal as can be."""
    return (total + tf.range(count)[::-1]) // count


@contextlib.contextmanager
def on_replicas(model: keras.Model) -> Iterator[None]:
    """While the block runs, `fit` works on several devices and several hosts.

    On several devices, the step that finds no more data has already decayed the weights
    and counted itself when it finds out: nothing of that needs data. Here it waits.

    On several hosts, Keras' TensorFlow trainer takes the mean of a step's figures along
    their first axis, which numbers don't have, and fails on data that is spread over
    replicas unless everything was built before.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        yield
        return
    many_hosts = worker_of(strategy)[1] > 1

    def waiting(step):
        def run(data):
            with tf.control_dependencies(tf.nest.flatten(data)):
                logs = step(data)
            if many_hosts:
                return {name: value[None] for name, value in logs.items()}
            return logs

        return run

    names = ("train_step", "test_step")
    changed = {name: waiting(getattr(model, name)) for name in names}
    if many_hosts:
        changed["_maybe_symbolic_build"] = lambda **_: None
    try:
        for name, function in changed.items():
            setattr(model, name, function)
        yield
    finally:
        for name in changed:
            delattr(model, name)


@contextlib.contextmanager
def watched(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """While the block runs on several hosts, each of them ends when another is gone.

    None leaves the block before all have come to its end, the chief with its files
    written: a worker that ended well is not started again, and the others would wait
    for it.
    """
    global _watchdog
    if worker_of(strategy)[1] == 1:
        yield
        return
    if _watchdog is None:  # the one of `make_strategy` has seen another block end
        _watchdog = Watchdog(read_cluster(os.environ["TF_CONFIG"]))
        _watchdog.start()
    try:
        yield
        _sum_over_workers(strategy, 1)
    except tf.errors.OpError:
        _watchdog.wait()
        raise
    _watchdog.stop()
    _watchdog = None


def check_same_everywhere(strategy: tf.distribute.Strategy, step: int) -> None:
    """Checks that all workers go on from the same step.

    Raises:
        ValueError: If they don't, as where they don't share the run's folder.
    """
    _, count = worker_of(strategy)
    if count > 1 and _sum_over_workers(strategy, step) != step * count:
        raise ValueError(
            "All workers must find the same checkpoint; the run's folder must be on a "
            f"disk that they share. Received: one of step {step} and others"
        )


def _sum_over_workers(strategy, number: int) -> int:
    local = len(strategy.extended.worker_devices)
    values = strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant(number, tf.int64)
    )
    return int(strategy.reduce("SUM", values, axis=None)) // local
