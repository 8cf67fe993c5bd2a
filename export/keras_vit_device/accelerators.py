"""Accelerators beside the CPU: LiteRT's `CompiledModel` on the GPU. NumPy and LiteRT only.

A driver may refuse a model, compute part of it on the CPU, end the process or never
answer. So a model is tried in a process of its own before it is loaded into this one.
"""

import contextlib
import ctypes
import dataclasses
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping

import numpy as np

from keras_vit_device.terminal import one_line

CHOICES = ("cpu", "gpu", "auto")
# Seconds for compiling and running; a phone's driver takes some for its kernels.
PATIENCE = 60.0
WHOLLY, PARTLY, REFUSED, MISSING = "wholly", "partly", "refused", "missing"
# Of which a third for running: who is slow answers fewer images.
_RUNNING = 1 / 3
_LEAST_RUNS = 5  # of which the median time is told
_CHILD = "from keras_vit_device.accelerators import _answer_parent; _answer_parent()"
# What the log says where there is no device, and what people are told of it.
_NO_DEVICE = {
    r"No module named 'ai_edge_litert": "ai-edge-litert with its CompiledModel is needed",
    r"cannot import name|'(?:CompiledModel|HardwareAccelerator)'.* has no attribute": (
        "this ai-edge-litert is too old for it"
    ),
    r"Couldn't load Vulkan: ([^\n]+)": r"no Vulkan (\1)",
    r"No adapters found": "no graphics adapter",
}
# Then LiteRT gives everything to the CPU, and calls that wholly accelerated.
_NO_LIBRARY = "GPU accelerator could not be loaded"
# Which driver there is, is asked once in a process.
_VARIABLES = ("LD_LIBRARY_PATH", "VK_DRIVER_FILES", "VK_ICD_FILENAMES")
_missing: dict[tuple, "Trial"] = {}
_UNSUPPORTED = re.compile(
    r"^(?!INFO|WARNING|ERROR)([A-Z][A-Z0-9_]+): ([^.\n]+)", re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of a model on an accelerator.

    Attributes:
        runs: `"wholly"`, `"partly"` (the rest on the CPU), `"refused"`, or `"missing"`
            where this machine has no such accelerator.
        reason: Why not wholly, in one line; empty if wholly.
        rows: The output of the first images as it came, of all unless it is slow,
            `(images, classes)`; or `None`.
        ms: Median milliseconds of an image, or `None`.
    """

    runs: str
    reason: str = ""
    rows: np.ndarray | None = None
    ms: float | None = None


class Gpu:
    """A model on the GPU, in this process; what the GPU can't do goes to the CPU.

    Args:
        content: The `.tflite`, of one input and one output.
        log: Whether LiteRT says what it does, some twenty lines.

    Raises:
        Exception: LiteRT's own, of any class.
    """

    def __init__(self, content: bytes, log: bool = False):
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.interpreter import Interpreter

        both = HardwareAccelerator.GPU | HardwareAccelerator.CPU
        with contextlib.nullcontext() if log else _silent():
            model = CompiledModel.from_buffer(content, hardware_accel=both)
            self._held = [
                model,
                *model.create_input_buffers(0),
                *model.create_output_buffers(0),
            ]
            # Whose own descriptions of its ends came later than its GPU.
            interpreter = Interpreter(model_content=content)
            (taken,) = interpreter.get_input_details()
            (given,) = interpreter.get_output_details()
            self._taken = np.dtype(taken["dtype"])
            self._given = np.dtype(given["dtype"])
            self._shape = tuple(map(int, taken["shape"]))
            self._count = int(np.prod(given["shape"]))
            self(np.zeros(self._shape[1:]))  # the first is slower, and has a log too
        self.wholly = model.is_fully_accelerated()
        # LiteRT logs its end as well, which is best while Python can hold it back.
        weakref.finalize(self, _release, self._held)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The output `(classes,)` as it comes, of pixels `(height, width, c)`.

        Raises:
            ValueError: If they have another shape.
        """
        if np.shape(pixels) != self._shape[1:]:
            raise ValueError(
                f"An image must have the model's shape {self._shape[1:]}. "
                f"Received: {np.shape(pixels)}"
            )
        model, taken, given = self._held
        taken.write(np.ascontiguousarray(pixels, self._taken).ravel())
        model.run_by_index(0, [taken], [given])
        return given.read(self._count, self._given.type).reshape(-1)


def _release(held: list) -> None:
    with _silent():
        held.clear()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what C++ prints, to both streams, past Python's."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C still holds for the streams
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def attempt(content: bytes, images: np.ndarray, patience: float = PATIENCE) -> Trial:
    """Runs images on the GPU in a process of its own.

    Args:
        content: The `.tflite`.
        images: Pixels `(count, height, width, c)`, one or more.
        patience: Seconds after which it is taken to hang.
    """
    variables = tuple(map(os.environ.get, _VARIABLES))
    if variables in _missing:
        return _missing[variables]
    given, model = io.BytesIO(), np.frombuffer(content, np.uint8)
    np.savez(given, model=model, images=images, seconds=patience * _RUNNING)
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=given.getvalue(),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(REFUSED, f"does not answer in {patience:g} seconds")
    log = child.stderr.decode(errors="replace")
    trial = _trial(child, log)
    if trial.runs == MISSING:  # for every model
        _missing[variables] = trial
    return trial


def _trial(child: subprocess.CompletedProcess, log: str) -> Trial:
    """What a process found out that has ended."""
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return Trial(REFUSED, f"ends the process by {name}")
    if _NO_LIBRARY in log:
        return Trial(MISSING, "this ai-edge-litert has no GPU accelerator")
    if child.returncode:
        return _failure(log)
    found = np.load(io.BytesIO(child.stdout))
    reason = "" if found["wholly"] else f"on the CPU: {_name_unsupported(log)}"
    runs = WHOLLY if found["wholly"] else PARTLY
    return Trial(runs, reason, found["rows"], float(found["ms"]))


def _answer_parent() -> None:
    """The other end of `attempt`: model and images from stdin, answers to stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # LiteRT prints there too
    given = np.load(io.BytesIO(sys.stdin.buffer.read()))
    gpu = Gpu(given["model"].tobytes(), log=True)
    images = given["images"]
    rows, times, start = [], [], time.perf_counter()
    for image in [*images, *[images[0]] * (_LEAST_RUNS - len(images))]:
        begin = time.perf_counter()
        rows.append(gpu(image))
        end = time.perf_counter()
        times.append(1000 * (end - begin))
        if end - start > given["seconds"]:
            break
    found = io.BytesIO()
    rows = np.stack(rows[: len(images)])
    np.savez(found, rows=rows, ms=statistics.median(times), wholly=gpu.wholly)
    answers.write(found.getvalue())
    answers.close()


def _failure(log: str) -> Trial:
    for pattern, words in _NO_DEVICE.items():
        if found := re.search(pattern, log):
            return Trial(MISSING, found.expand(words))
    # What LiteRT's kernels say of it, else what can't go to the GPU, else Python's last
    # line, after which LiteRT goes on to talk.
    kernels = re.findall(r"^ERROR: (?!\[|Following )(.+)", log, re.MULTILINE)[:1]
    listed = [words] if (words := _name_unsupported(log)) else []
    errors = re.findall(r"^\w*(?:Error|Exception): .+", log, re.MULTILINE)[-1:]
    first, *_ = [*kernels, *listed, *errors, "it ends without a word"]
    return Trial(REFUSED, one_line(first, 200))


def _name_unsupported(log: str) -> str:
    """Operations that LiteRT's log names as not supported, with the reason of each."""
    reasons = dict.fromkeys(_UNSUPPORTED.findall(log))
    kinds: dict[str, list[str]] = {}
    for kind, reason in reasons:
        kinds.setdefault(reason.rstrip("."), []).append(kind)
    return "; ".join(
        f"{', '.join(sorted(set(it)))} ({why})" for why, it in kinds.items()
    )


def fastest(times: Mapping[str, float]) -> str:
    """The accelerator with the fewest milliseconds; the first of equals."""
    return min(times, key=times.get)
