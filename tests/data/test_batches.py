"""The order of training images is a function of seed and step, wherever they lie."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data import batches
from keras_vit.data.batches import Split, TrainingImages, epoch_order


def source(kind, count=22, batch_size=4, seed=3):
    """Images of 1 x 1 pixel whose value is their row, and their label too."""
    rows = np.arange(count)
    examples = rows.astype("uint8").reshape(count, 1, 1, 1), rows.astype("int32")
    if kind == "files":
        names = np.array([b"%d" % row for row in rows])
        examples = names, examples[1]

    def prepare(raw, label):
        if kind == "files":
            number = tf.strings.to_number(raw, tf.int32)
            raw = tf.cast(tf.reshape(number, (1, 1, 1)), tf.uint8)
        return raw, label

    split = Split(
        tf.data.Dataset.from_tensor_slices(examples),
        count,
        None if kind == "stream" else examples,
    )
    return TrainingImages(split, prepare, batch_size, seed, kind == "kept")


def steps(images, first, last, **options):
    """(step, rows) of each batch; labels are those of the images."""
    found = []
    epochs = images.epochs(lambda: first + len(found), **options)
    while len(found) < last - first:
        rest = epochs.take(last - first - len(found))
        for step, pixels, labels in rest.as_numpy_iterator():
            np.testing.assert_array_equal(pixels[:, 0, 0, 0], labels)
            found.append((int(step), labels.tolist()))
    return found


KINDS = pytest.mark.parametrize("kind", ["kept", "files", "stream"])


@KINDS
def test_from_any_step_on_batches_are_those_of_a_run_from_the_start(kind):
    images = source(kind)
    assert images.steps_per_epoch == 5
    whole = steps(images, 0, 13)
    assert [step for step, _ in whole] == list(range(13))
    for first in (3, 5, 7, 12):
        assert steps(source(kind), first, 13) == whole[first:]


@KINDS
def test_an_epoch_shows_no_image_twice_and_the_next_has_another_order(kind):
    rows = [row for _, batch in steps(source(kind), 0, 10) for row in batch]
    first, second = rows[:20], rows[20:]
    assert len(set(first)) == len(set(second)) == 20
    assert first != second
    other = [row for _, batch in steps(source(kind, seed=4), 0, 5) for row in batch]
    assert other != first


@KINDS
def test_repeated_images_share_a_batch_and_an_epoch_stays_as_long(kind):
    found = steps(source(kind, batch_size=6), 0, 3, repeats=3)
    assert [len(set(batch)) for _, batch in found] == [2, 2, 2]
    assert all(batch.count(row) == 3 for _, batch in found for row in batch)
    assert len({row for _, batch in found for row in batch}) == 6


@KINDS
def test_an_epoch_of_several_passes_shows_every_image_as_often(kind):
    """Also from any step on, and a batch may reach from one pass into the next."""
    images = dataclasses.replace(source(kind), passes=2)
    assert images.steps_per_epoch == 11
    whole = steps(images, 0, 22)
    for epoch in (whole[:11], whole[11:]):
        rows = [row for _, batch in epoch for row in batch]
        assert len(rows) == 44 and all(rows.count(row) == 2 for row in range(22))
    if kind != "stream":  # which is shuffled by the pass
        first, second = np.split(np.array(rows), 2)
        assert sorted(first) == sorted(second) and (first != second).any()
    again = dataclasses.replace(source(kind), passes=2)
    assert steps(again, 5, 22) == whole[5:]


@KINDS
def test_workers_share_the_batch_of_one(kind):
    alone = steps(source(kind, batch_size=5), 2, 6)
    parts = [steps(source(kind, batch_size=5), 2, 6, worker=(i, 2)) for i in (0, 1)]
    for (step, batch), *shares in zip(alone, *parts, strict=True):
        assert [number for number, _ in shares] == [step, step]
        assert [rows for _, rows in shares] == [batch[0::2], batch[1::2]]


@KINDS
def test_fewer_images_than_a_batch_are_one_batch(kind):
    images = source(kind, count=3, batch_size=8)
    assert images.batch_size == 3  # what rates and speeds are reckoned by
    assert [sorted(batch) for _, batch in steps(images, 0, 2)] == [[0, 1, 2]] * 2


@KINDS
def test_the_data_set_of_passes_is_an_epoch_each_time(kind):
    images = source(kind)
    expected = [batch for _, batch in steps(images, 0, 10)]
    passes = images.batches
    assert int(passes.cardinality()) == 5
    found = [
        labels.tolist() for _ in range(2) for _, labels in passes.as_numpy_iterator()
    ]
    assert found == expected


def test_streams_are_shuffled_in_a_window(monkeypatch):
    monkeypatch.setattr(batches, "SHUFFLE_WINDOW", 2)
    rows = [row for _, batch in steps(source("stream"), 0, 5) for row in batch]
    assert all(row <= place + 1 for place, row in enumerate(rows))


def test_the_order_is_not_that_of_the_seed_before():
    orders = [epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_nothing_is_decoded_before_a_batch_is_asked_for():
    images = source("kept")
    images.batches, images.epochs(lambda: 0)
    assert "_arrays" not in vars(images)
    next(iter(images.batches))
    assert "_arrays" in vars(images)
