"""Where a file runs, and what the report says of it."""

import pathlib

import numpy as np
import pytest
from commands import complaint
from keras_vit_device import accelerators
from keras_vit_device.accelerators import Trial
from keras_vit_export import Classifier
from keras_vit_export.gpu.reach import Reach, reach
from keras_vit_export.report.wording import notes, rows, table

ROOT = pathlib.Path(__file__).parents[2]
OLD_LAYOUT = ROOT / "tests/runtimes/old_layout.tflite"


@pytest.fixture(scope="module")
def classifier():
    return Classifier(OLD_LAYOUT)


@pytest.fixture(scope="module")
def digits():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 8, 8, 1)).astype("uint8")


@pytest.fixture
def gpu(monkeypatch, classifier):
    """A function that lets the GPU give these answers of the CPU's, changed."""

    def install(change=lambda rows: rows, count=None, **trial):
        def attempt(content, images, patience):
            answers = change(classifier.probabilities(images))[:count]
            return Trial(**{"runs": "wholly", "rows": answers, "ms": 2.0} | trial)

        monkeypatch.setattr(accelerators, "attempt", attempt)

    return install


def test_a_gpu_that_agrees(gpu, classifier, digits):
    gpu()
    found = reach(classifier, digits)
    assert found["cpu"].runs == "wholly" and found["cpu"].self_test == "passed"
    assert found["gpu"] == Reach("wholly", "", 1.0, 0.0, 6, "passed", 2.0)


def test_a_gpu_that_is_wrong(gpu, classifier, digits):
    gpu(lambda rows: np.roll(rows, 1, axis=1))
    found = reach(classifier, digits)["gpu"]
    assert found.agreement == 0.0 and found.distance > 0.3
    assert found.self_test.startswith("failed: expected 6 55.1%, got 7 55.1%")


def test_a_gpu_that_is_slow_is_held_against_as_many_images(gpu, classifier, digits):
    gpu(count=3)
    assert reach(classifier, digits)["gpu"].images == 2
    gpu(count=1)  # the pattern alone
    found = reach(classifier, digits)["gpu"]
    assert (found.images, found.agreement) == (1, 1.0)


def test_a_table_has_a_row_for_each_and_reasons_below(gpu, classifier, digits):
    gpu(runs="partly", reason="on the CPU: MEAN (no)")
    partly = reach(classifier, digits)
    gpu(rows=None, runs="refused", reason="ends the process by SIGSEGV", ms=None)
    refused = reach(classifier, digits)
    found = {"full_int8": partly, "int4": refused}
    assert [row[:3] for row in rows(found)] == [
        ("full_int8", "CPU", "wholly"),
        ("full_int8", "GPU", "partly"),
        ("int4", "CPU", "wholly"),
        ("int4", "GPU", "refused"),
    ]
    assert rows(found)[1][3:5] == ("100.00%", "passed")
    assert rows(found)[3][3:] == ("-", "-", "-")
    assert notes(found) == [
        "full_int8 on GPU, partly: on the CPU: MEAN (no).",
        "int4 on GPU, refused: ends the process by SIGSEGV.",
    ]
    assert table(found).count("\n| ") == 5


def test_a_gpu_that_is_not_there_is_one_line(gpu, classifier, digits):
    gpu(rows=None, runs="missing", reason="no Vulkan", ms=None)
    found = {name: reach(classifier, digits) for name in ("float32", "float16")}
    assert len(rows(found)) == 2
    assert notes(found) == ["GPU: not tried, no Vulkan."]
    with pytest.raises(RuntimeError, match="There is no GPU here: no Vulkan."):
        reach(classifier, digits, ["gpu"])


def test_benchmark_wants_an_accelerator_that_is_here(gpu, capfd):
    gpu(rows=None, runs="missing", reason="no Vulkan", ms=None)
    command = ("benchmark", ROOT / "models/digits.keras", "--dataset", "digits")
    line = complaint(capfd, *command, "--accelerator", "gpu")
    assert line == "keras-vit: There is no GPU here: no Vulkan."
    line = complaint(capfd, *command, "--accelerator", "npu")
    assert "--accelerator must be one of" in line and "Received: 'npu'" in line
