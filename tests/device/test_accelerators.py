"""The GPU is tried where it can do no harm, and what it did is told in one line.

Drivers here are made of a few lines of Python, as this suite needs no GPU;
`make test-devices` runs a real one.
"""

import pathlib
import sys
import time

import numpy as np
import pytest
from foreign import with_contract
from keras_vit_device import accelerators
from keras_vit_device.accelerators import Trial, attempt, fastest
from keras_vit_export import Classifier

OLD_LAYOUT = pathlib.Path(__file__).parents[1] / "runtimes/old_layout.tflite"

DRIVER = """
import os, sys, time
import numpy as np

class Buffer:
    def write(self, values): self.values = values
    def read(self, count, kind): return (ROW * self.values.mean()).astype(kind)

class CompiledModel:
    @classmethod
    def from_buffer(cls, content, hardware_accel):
        {start}
        return cls()
    def create_input_buffers(self, index): return [Buffer()]
    create_output_buffers = create_input_buffers
    def is_fully_accelerated(self): return {wholly}
    def run_by_index(self, index, taken, given):
        {run}
        given[0].values = taken[0].values

ROW = np.arange(10) / 45
"""
INTERPRETER = """
import numpy as np

class Interpreter:
    def __init__(self, model_content): pass
    def get_input_details(self):
        return [{"dtype": np.float32, "shape": np.array([1, 8, 8, 1])}]
    def get_output_details(self):
        return [{"dtype": np.float32, "shape": np.array([1, 10])}]
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A function that installs an ai-edge-litert with a GPU of one's own making."""

    def install(start="pass", run="pass", wholly=True, script=DRIVER):
        package = tmp_path / "ai_edge_litert"
        package.mkdir()
        (package / "__init__.py").write_text("")
        kinds = "class HardwareAccelerator:\n    CPU, GPU = 1, 2\n"
        (package / "hardware_accelerator.py").write_text(kinds)
        (package / "interpreter.py").write_text(INTERPRETER)
        if script is not None:
            text = script.format(start=start, run=run, wholly=wholly)
            (package / "compiled_model.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(accelerators, "_missing", {})

    return install


IMAGES = np.full((3, 8, 8, 1), [[[[1]]], [[[2]]], [[[3]]]], "uint8")


def tried(patience=20.0):
    return attempt(b"a model", IMAGES, patience)


def test_a_gpu_that_works_answers_every_image(driver):
    driver(start="print('INFO: a line of C++'); os.write(1, b'INFO: another')")
    trial = tried()
    assert (trial.runs, trial.reason) == ("wholly", "")
    expected = np.outer([1, 2, 3], np.arange(10) / 45)
    np.testing.assert_allclose(trial.rows, expected, rtol=1e-6)
    assert 0 < trial.ms < 1000


def test_what_runs_on_the_cpu_is_named(driver):
    log = (
        "Following operations are not supported by GPU delegate:\n"
        "MEAN: Tensor type(INT16) is not supported. block_00/Mul\n"
        "MEAN: Tensor type(INT16) is not supported. block_01/Mul\n"
        "RSQRT: Tensor type(INT16) is not supported. block_00/Add\n"
        "GATHER: Operation is not supported.\n"
        "INFO: [a.cc:1] 3 operations will run on the GPU.\n"
    )
    driver(start=f"sys.stderr.write({log!r})", wholly=False)
    trial = tried()
    assert trial.runs == "partly" and len(trial.rows) == 3
    assert trial.reason == (
        "on the CPU: MEAN, RSQRT (Tensor type(INT16) is not supported); "
        "GATHER (Operation is not supported)"
    )


@pytest.mark.parametrize(
    ("options", "runs", "words"),
    [
        ({"start": "time.sleep(60)"}, "refused", "does not answer in 2 seconds"),
        ({"run": "time.sleep(60)"}, "refused", "does not answer in 2 seconds"),
        ({"run": "os.kill(os.getpid(), 11)"}, "refused", "ends the process by SIGSEGV"),
        (
            {
                "start": "import atexit; atexit.register(os.write, 2, b'INFO: the end'); "
                "raise RuntimeError('no kernel')"
            },
            "refused",
            "no kernel",
        ),
        ({"start": "os._exit(7)"}, "refused", "without a word"),
        (
            {
                "run": "sys.stderr.write('MEAN: Not supported.\\nERROR: [a.cc:1]\\nERROR: "
                "Rsqrt is only defined for positive values\\n'); raise RuntimeError('E')"
            },
            "refused",
            "Rsqrt is only defined for positive values",
        ),
        (
            {
                "start": "sys.stderr.write('STRIDED_SLICE: Slice not supported.\\n'); "
                "raise RuntimeError('ERROR')"
            },
            "refused",
            "STRIDED_SLICE (Slice not supported)",
        ),
        (
            {
                "start": "sys.stderr.write(\"Warning: Couldn't load Vulkan: libvulkan.so"
                ".1: no such file\\n\"); raise RuntimeError('ERROR')"
            },
            "missing",
            "no Vulkan (libvulkan.so.1: no such file)",
        ),
        (
            {"start": "raise RuntimeError('No adapters found')"},
            "missing",
            "no graphics",
        ),
        (
            {
                "start": "sys.stderr.write('WARNING: [gpu_registry.cc:160] GPU "
                "accelerator could not be loaded and registered.\\n')"
            },
            "missing",  # although the CPU answers in its place
            "this ai-edge-litert has no GPU accelerator",
        ),
        (
            {
                "start": "sys.stderr.write('WARNING: NPU accelerator could not be "
                "loaded.\\n'); raise RuntimeError('no kernel')"
            },
            "refused",
            "no kernel",
        ),
        ({"script": None}, "missing", "ai-edge-litert with its CompiledModel"),
        ({"script": "class CompiledModel: pass"}, "missing", "is too old for it"),
    ],
)
def test_what_goes_wrong_is_one_line(options, runs, words, driver):
    driver(**options)
    begin = time.monotonic()
    trial = tried(patience=2.0 if "sleep" in str(options) else 20.0)
    assert time.monotonic() - begin < 15
    assert trial.runs == runs and trial.rows is None
    assert words in trial.reason and "\n" not in trial.reason


def test_a_slow_gpu_answers_some_images(driver):
    driver(run="time.sleep(0.5)")
    trial = tried(patience=3.0)
    assert trial.runs == "wholly" and len(trial.rows) in (1, 2)
    assert trial.ms > 400


def test_that_there_is_no_gpu_is_found_out_once(driver, monkeypatch):
    driver(start="raise RuntimeError('No adapters found')")
    first = tried()
    monkeypatch.setattr(accelerators.subprocess, "run", None)
    assert tried() == first


def test_the_fastest_is_taken():
    assert fastest({"cpu": 2.0, "gpu": 1.0}) == "gpu"
    assert fastest({"cpu": 1.0, "gpu": 1.0}) == "cpu"


class Scripted:
    """A GPU that gives an answer of its own."""

    def __init__(self, row, monkeypatch, ms=1e-6, **trial):
        rows = None if row is None else np.array([row])
        found = {"runs": "wholly", "rows": rows, "ms": ms} | trial
        monkeypatch.setattr(accelerators, "attempt", lambda *_: Trial(**found))
        monkeypatch.setattr(accelerators, "Gpu", lambda content: self)
        self.row = row

    def __call__(self, image):
        return np.array(self.row)


@pytest.fixture(scope="module")
def right():
    """The answer that the file carries."""
    return Classifier(OLD_LAYOUT).self_test.probabilities.astype("float32")


def opened(accelerator, capfd):
    """A classifier, and what was said of it."""
    classifier = Classifier(OLD_LAYOUT, accelerator=accelerator)
    return classifier, capfd.readouterr().err.strip().removeprefix(f"'{OLD_LAYOUT}' ")


def test_auto_takes_a_gpu_that_passes_and_is_faster(right, monkeypatch, capfd):
    Scripted(right, monkeypatch)
    classifier, said = opened("auto", capfd)
    assert classifier.accelerator == "gpu" and classifier.verdict.passed
    assert said.startswith("runs on the GPU, which passes the self-test: CPU 0.")
    answer = classifier.probabilities([np.zeros((8, 8, 1), "uint8")])
    np.testing.assert_array_equal(answer, [right])


def test_auto_leaves_a_gpu_that_is_slower(right, monkeypatch, capfd):
    Scripted(right, monkeypatch, ms=1e6)
    classifier, said = opened("auto", capfd)
    assert classifier.accelerator == "cpu"
    assert said.startswith("runs on the CPU, which is faster: CPU 0.")


def test_auto_leaves_a_gpu_that_is_wrong(right, monkeypatch, capfd):
    for row in (np.roll(right, 1), np.full(10, np.nan)):
        Scripted(row, monkeypatch)
        classifier, said = opened("auto", capfd)
        assert classifier.accelerator == "cpu"
        assert "the GPU fails the self-test, expected 6 55.1%, got" in said
        assert len(said.splitlines()) == 1


def test_auto_goes_on_with_the_cpu_where_there_is_no_gpu(monkeypatch, capfd):
    Scripted(None, monkeypatch, runs="missing", reason="no Vulkan")
    classifier, said = opened("auto", capfd)
    assert classifier.accelerator == "cpu" and classifier.verdict.passed
    assert said == "runs on the CPU, not on the GPU: no Vulkan."


def test_auto_has_nothing_to_try_a_file_without_a_test_with(capfd):
    content = with_contract(OLD_LAYOUT.read_bytes(), self_test=None)
    assert Classifier(content, accelerator="auto").accelerator == "cpu"
    assert "carries no self-test" in capfd.readouterr().err


def test_a_gpu_by_name_must_pass(right, monkeypatch):
    Scripted(right, monkeypatch, ms=1e6)
    assert Classifier(OLD_LAYOUT, accelerator="gpu").accelerator == "gpu"
    Scripted(np.roll(right, 1), monkeypatch)
    with pytest.raises(ValueError, match="the GPU: expected 6 55.1%, got 7 55.1%"):
        Classifier(OLD_LAYOUT, accelerator="gpu")
    unchecked = Classifier(OLD_LAYOUT, accelerator="gpu", self_test=False)
    assert unchecked.accelerator == "gpu" and unchecked.verdict is None
    Scripted(None, monkeypatch, runs="refused", reason="does not answer in 60 seconds")
    with pytest.raises(RuntimeError, match="can't run on the GPU: does not answer in"):
        Classifier(OLD_LAYOUT, accelerator="gpu")


def test_a_gpu_by_name_warns_of_a_file_without_a_test(right, monkeypatch):
    Scripted(right, monkeypatch)
    content = with_contract(OLD_LAYOUT.read_bytes(), self_test=None)
    with pytest.warns(UserWarning, match="no self-test: what the GPU answers is unch"):
        Classifier(content, accelerator="gpu")


def test_an_accelerator_that_nobody_knows_is_answered_with_those_that_are():
    with pytest.raises(ValueError, match="one of cpu, gpu, auto. Received: 'npu'"):
        Classifier(OLD_LAYOUT, accelerator="npu")


def test_an_image_of_another_shape_is_refused_on_the_gpu_too(driver, monkeypatch):
    driver()
    for name in list(sys.modules):
        if name.partition(".")[0] == "ai_edge_litert":
            monkeypatch.delitem(sys.modules, name)
    gpu = accelerators.Gpu(b"a model")
    assert gpu(np.ones((8, 8, 1))).shape == (10,)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\). Received: \(8, 9, 1\)"):
        gpu(np.ones((8, 9, 1)))
