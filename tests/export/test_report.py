"""What a report says is what was measured."""

import numpy as np
import pytest
from keras_vit_export.report.measure import measure, median_latency_ms


class Remainder:
    """Calls an image the remainder of its first pixel."""

    size_bytes, operations, class_names = 0, {}, ("a", "b", "c")
    content = b""

    def __init__(self, divisor):
        self.divisor = divisor

    def probabilities(self, images):
        return np.eye(3)[np.asarray(images)[:, 0, 0, 0] % self.divisor]


def test_agreement_is_with_the_keras_model_and_top1_with_the_labels(images):
    report = measure(Remainder(3), {"other": Remainder(2)}, images)["other"]
    first = np.concatenate([x[:, 0, 0, 0] for x, _ in images.as_numpy_iterator()])
    labels = np.concatenate([y for _, y in images.as_numpy_iterator()])
    assert report.agreement == np.mean(first % 2 == first % 3)
    assert report.top1 == np.mean(first % 2 == labels)
    assert len({0.0, 1.0, report.agreement, report.top1}) == 4


def test_latencies_are_medians_taken_in_turn(monkeypatch):
    order, now = [], 0.0
    # Milliseconds of each call: five turns warm up, and the first of two isn't timed.
    rest = {"a": iter([50] * 11 + [9, 50, 1, 50, 3]), "b": iter([50] * 11 + [2] * 5)}

    def run(name):
        nonlocal now
        order.append(name)
        now += next(rest[name]) / 1000

    monkeypatch.setattr(
        "keras_vit_export.report.measure.time.perf_counter", lambda: now
    )
    runs = {name: lambda name=name: run(name) for name in "ab"}
    medians = median_latency_ms(runs, rounds=3)
    assert order == list("aabb") * 8
    assert medians == pytest.approx({"a": 3.0, "b": 2.0})
