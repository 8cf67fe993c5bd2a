"""Training on several GPUs and on several hosts, and what Keras needs for it."""

import contextlib
import os
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_vit.config import check_choice
from keras_vit.training.hosts.cluster import (
    PATIENCE,
    Watchdog,
    place,
    read_cluster,
    wait_for_all,
)

STRATEGIES = ("auto", "mirrored", "multiworker")

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
    return place(workers, resolver.task_type, resolver.task_id), count


def own_part(strategy: tf.distribute.Strategy, batches: tf.data.Dataset):
    """Of each batch what this worker is to see of it."""
    index, count = worker_of(strategy)
    if count == 1:
        return batches
    return batches.map(lambda *batch: tuple(part[index::count] for part in batch))


def distribute(
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
    and counted itself when it finds out: nothing of that needs data. Here it waits. And
    Keras builds the model once more from the mean of what the devices are given, which
    fails where that is not of one shape, or not of this host alone; it is built already.

    On several hosts, Keras' TensorFlow trainer takes the mean of a step's figures along
    their first axis, which numbers don't have.
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
    changed["_maybe_symbolic_build"] = lambda **_: None
    try:
        for name, function in changed.items():
            setattr(model, name, function)
        yield
    finally:
        for name in changed:
            delattr(model, name)


@contextlib.contextmanager
def end_together(strategy: tf.distribute.Strategy) -> Iterator[None]:
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
