"""The interpreter of `.tflite` files that is installed, and what an old one gets wrong.

ai-edge-litert's, else `tflite_runtime`'s, whose last release, 2.14 (2023), verifies
nothing that it reads, and reads one scale of a weight where we store one an output.
"""

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np

_PATIENCE = 20  # seconds for the first run of a file that may be damaged
# What that run is: all that a classifier does.
_TRIAL = """
import sys
from keras_vit_device import classifier, interpreters

interpreters._try_in_a_child = lambda content, num_threads: None
try:
    classifier.Classifier(sys.stdin.buffer.read(), int(sys.argv[1])).benchmark(1)
except ValueError as error:
    sys.exit(str(error))
"""


class RefusedError(ValueError):
    """What is to be said of a model, after its name."""


def find() -> type:
    """The class of the interpreter.

    Raises:
        RuntimeError: If there is none.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise RuntimeError(
                "There is no interpreter of .tflite files: pip install ai-edge-litert"
            ) from None
    return Interpreter


def start(interpreter: type, content: bytes, num_threads: int, is_whole: bool) -> Any:
    """An interpreter of a model, ready to run.

    Args:
        interpreter: Of `find`.
        content: The `.tflite`.
        num_threads: Threads of the interpreter.
        is_whole: Whether a digest has shown that the model is as it was written.

    Raises:
        RefusedError: If tflite_runtime would compute it wrongly, or an input but for the
            number of images has no fixed size.
        Exception: The interpreter's own, of any class.
    """
    old = interpreter.__module__.startswith("tflite_runtime")
    if old and not is_whole:
        _try_in_a_child(content, num_threads)
    started = interpreter(model_content=content, num_threads=num_threads)
    _check_sizes(started)
    started.allocate_tensors()
    if old and _is_mixed(started):
        raise RefusedError(
            " has dense layers of integer weights with several scales, and float "
            "values, which tflite_runtime computes wrongly: install ai-edge-litert, or "
            "export with --compat 2.14 (not int4)."
        )
    return started


def _check_sizes(interpreter: Any) -> None:
    for taken in interpreter.get_input_details():
        # Its `shape` has 1 where any size will do.
        sizes = tuple(map(int, taken.get("shape_signature", ())))
        if min(sizes[1:], default=1) < 1:
            raise RefusedError(
                " takes images of any size: convert it with its height and width fixed. "
                f"Received: {sizes}"
            )


def _try_in_a_child(content: bytes, num_threads: int) -> None:
    """Runs a model once in a process of its own.

    tflite_runtime does not verify what it reads: of files that were cut off, most end
    the process. Those that carry their digest are whole.

    Raises:
        ValueError: If the process was ended by a signal, or hangs, or refuses it.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", _TRIAL, str(num_threads)],
            input=content,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"It does not answer in {_PATIENCE} seconds.") from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ValueError(f"It ends a process by {name}.")
    if child.returncode:
        *_, line = child.stderr.decode(errors="replace").strip().splitlines()
        if line.startswith("The model"):
            raise RefusedError(line.removeprefix("The model"))
        raise ValueError(f"Where it was tried: {line}")


def _is_mixed(interpreter: Any) -> bool:
    """Whether a dense layer gives floats from integers of more than one scale."""
    tensors = {it["index"]: it for it in interpreter.get_tensor_details()}
    return any(
        np.issubdtype(tensors[it["outputs"][0]]["dtype"], np.floating)
        and len(tensors[it["inputs"][1]]["quantization_parameters"]["scales"]) > 1
        for it in interpreter._get_ops_details()
        if it["op_name"] == "FULLY_CONNECTED"
    )
