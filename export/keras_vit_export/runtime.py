"""Runs an exported model: NumPy, Pillow and ai-edge-litert, no TensorFlow.

`tflite_runtime` takes ai-edge-litert's place where that is what is installed. Its last
release, 2.14, reads one scale of a weight where we store one for each output.
"""

import dataclasses
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_vit_export import inspection, metadata
from keras_vit_files import existing_file
from keras_vit_pixels import fit_array, fit_image, open_image

_PATIENCE = 20  # seconds for the first run of a file that may be damaged
# What that run is: all that a classifier does.
_TRIAL = """
import sys
from keras_vit_export.runtime import Classifier

class Trial(Classifier):
    def _try_in_a_child(self, content, num_threads):
        pass

try:
    Trial(sys.stdin.buffer.read(), int(sys.argv[1])).benchmark(1)
except ValueError as error:
    sys.exit(str(error))
"""


class _RefusedInChildError(ValueError):
    """What a child says of a model, after its name."""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one image, without decoding and resizing.

    Attributes:
        median_ms: Median of all rounds in milliseconds.
        lowest_ms: The shortest.
        highest_ms: The longest.
    """

    median_ms: float
    lowest_ms: float
    highest_ms: float

    def __str__(self) -> str:
        return f"{self.median_ms:.2f} ms ({self.lowest_ms:.2f}..{self.highest_ms:.2f})"


class Classifier:
    """A `.tflite` image classifier with its class names and preprocessing.

    Threads of Python may share one: they take turns.

    Args:
        model: Path of the file, or its bytes.
        num_threads: Threads of the interpreter.

    Raises:
        ValueError: If the file is missing, damaged, cut off, or no image classifier.
        RuntimeError: If there is no interpreter.
    """

    def __init__(self, model: str | pathlib.Path | bytes, num_threads: int = 1):
        if num_threads < 1:
            raise ValueError(f"num_threads must be positive. Received: {num_threads}")
        name = "The model" if isinstance(model, bytes) else f"'{model}'"
        content = (
            model if isinstance(model, bytes) else existing_file(model).read_bytes()
        )
        self._load(content, num_threads, name)
        self._turn = threading.Lock()
        self._input, self._output = self._check(name)
        self.size_bytes = len(content)
        self.content = content
        self.preprocessing = self._rule(name)
        self.class_names = self._told_apart(int(self._output["shape"][-1]))

    def _load(self, content: bytes, num_threads: int, name: str) -> None:
        interpreter = _interpreter()
        old = interpreter.__module__.startswith("tflite_runtime")
        try:
            self.class_names, self.contract = metadata.read(content)
            if old and "sha256" not in self.contract:
                self._try_in_a_child(content, num_threads)
            self._interpreter = interpreter(
                model_content=content, num_threads=num_threads
            )
            self._interpreter.allocate_tensors()
        except metadata.DamagedError as error:
            raise ValueError(f"{name} is damaged: {error}") from error
        except _RefusedInChildError as error:
            raise ValueError(f"{name}{error}") from error
        except Exception as error:  # a cut-off file fails in many places
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{name} is cut off or is no TFLite model. {reason}"
            ) from error
        if old and self._is_mixed():
            raise ValueError(
                f"{name} has dense layers of integer weights with several scales, and "
                "float values, which tflite_runtime computes wrongly: install "
                "ai-edge-litert, or export with --compat 2.14 (not int4)."
            )

    def _told_apart(self, count: int) -> tuple[str, ...]:
        """A name of its own for each class: other exporters' ImageNet has two cranes."""
        names = self.class_names
        if len(names) != count:
            return tuple(f"class {index}" for index in range(count))
        counts = Counter(names)
        return tuple(
            f"{name} ({index})" if counts[name] > 1 else name
            for index, name in enumerate(names)
        )

    def _try_in_a_child(self, content: bytes, num_threads: int) -> None:
        """Runs a model once in a process of its own.

        tflite_runtime does not verify what it reads: of files that were cut off, most
        end the process. Those that carry their digest are whole.

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
                raise _RefusedInChildError(line.removeprefix("The model"))
            raise ValueError(f"Where it was tried: {line}")

    def _check(self, name: str) -> tuple[dict, dict]:
        """The one input and the one output, if they are an image classifier's."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        tensors = [*inputs, *outputs]
        ranks = [len(tensor["shape"]) for tensor in tensors]
        types = [np.dtype(tensor["dtype"]).name for tensor in tensors]
        if (
            (len(inputs), len(outputs), ranks) != (1, 1, [4, 2])
            or inputs[0]["shape"][0] != 1
            or types[0] not in ("float32", "uint8")
            or types[1] not in ("float32", "uint8")
        ):
            raise ValueError(
                f"{name} is no image classifier: one image (1, height, width, c) of "
                "float32 or uint8 in, one row (1, classes) of the same out. Received: "
                f"ranks {ranks}, types {types}"
            )
        return inputs[0], outputs[0]

    def _is_mixed(self) -> bool:
        """Whether a dense layer gives floats from integers of more than one scale."""
        tensors = {it["index"]: it for it in self._interpreter.get_tensor_details()}
        return any(
            np.issubdtype(tensors[it["outputs"][0]]["dtype"], np.floating)
            and len(tensors[it["inputs"][1]]["quantization_parameters"]["scales"]) > 1
            for it in self._interpreter._get_ops_details()
            if it["op_name"] == "FULLY_CONNECTED"
        )

    def _rule(self, name: str) -> dict[str, Any]:
        """How images are fitted; a plain stretch where the file does not say."""
        _, height, width, channels = (int(side) for side in self._input["shape"])
        shape = (height, width, channels)
        rule = {
            "image_size": (height, width),
            "channels": channels,
            "resize": "stretch",
            "interpolation": "bilinear",
            "crop": 1.0,
        }
        try:
            rule |= self.contract.get("preprocessing", {})
            # Before the first use: a rule of another size could ask for any memory.
            if (*rule["image_size"], rule["channels"]) != shape:
                raise ValueError(f"It gives {rule['image_size']}, {rule['channels']}.")
            if channels in (1, 3):  # others take arrays, no image files
                fit_array(np.zeros((1, 1, 1), "uint8"), rule)
        except Exception as error:  # whatever a file may hold
            raise ValueError(
                f"{name} is damaged: its preprocessing does not give images of "
                f"{shape}. {' '.join(str(error).split())[:200]}"
            ) from error
        return rule

    def __call__(self, image: str | pathlib.Path | np.ndarray) -> dict[str, float]:
        """Probability of each class for what `read` takes, the largest first."""
        probabilities = self.probabilities([self.read(image)])[0]
        return dict(most_probable(self.class_names, probabilities))

    def read(self, image: str | pathlib.Path | np.ndarray) -> np.ndarray:
        """Fits an image to the model: uint8 `(height, width, c)`.

        Args:
            image: Image file; or a frame of any size, grey `(rows, columns)` or
                `(rows, columns, 1)`, or RGB `(rows, columns, 3)`, uint8. OpenCV's
                frames are BGR: give `frame[..., ::-1]`.

        Raises:
            OSError: If the file is no image or is cut off.
            ValueError: If the array is no such frame.
        """
        if not isinstance(image, np.ndarray):
            return fit_image(open_image(image), **self.preprocessing)
        frame = image[..., None] if image.ndim == 2 else image
        if (
            frame.ndim != 3
            or frame.shape[-1] not in (1, 3)
            or frame.size == 0
            or frame.dtype != np.uint8
        ):
            raise ValueError(
                "A frame must be uint8, (rows, columns) or with 1 or 3 channels last. "
                f"Received: shape {image.shape}, type {image.dtype}"
            )
        return fit_array(frame, self.preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images that fit the model.

        Args:
            images: Each `(height, width, c)` in 0..255. Of any number of files,
                `map(classifier.read, paths)` holds one at a time.

        Raises:
            ValueError: If an image has another shape, or the model can't be run.
        """
        rows = [self._run(image) for image in images]
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), "f4")

    def benchmark(self, rounds: int = 50) -> Latency:
        """Times the model on noise, after five rounds that warm up.

        Args:
            rounds: How often it is run.

        Raises:
            ValueError: If the rounds are not positive.
        """
        if rounds < 1:
            raise ValueError(f"rounds must be positive. Received: {rounds}")
        shape = self._input["shape"][1:]
        image = np.random.default_rng(0).integers(0, 256, shape, "uint8")
        times = []
        for _ in range(5 + rounds):
            begin = time.perf_counter()
            self._run(image)
            times.append(1000 * (time.perf_counter() - begin))
        times = times[5:]
        return Latency(statistics.median(times), min(times), max(times))

    @property
    def ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The input and the output as the interpreter describes them."""
        return self._input, self._output

    @property
    def operations(self) -> dict[str, dict[str, int]]:
        """How many of each operation the model has, by precision.

        Needs ai-edge-litert.
        """
        return inspection.operations(self.content)

    def _run(self, image: np.ndarray) -> np.ndarray:
        pixels = np.asarray(image, self._input["dtype"])[None]
        with self._turn:
            self._interpreter.set_tensor(self._input["index"], pixels)
            try:
                self._interpreter.invoke()
            except RuntimeError as error:  # damage that no digest could tell
                reason = " ".join(str(error).split())[:200]
                raise ValueError(f"The model can't be run. {reason}") from error
            row = self._interpreter.get_tensor(self._output["index"])[0]
        if not np.isfinite(row).all():
            raise ValueError("The model can't be run. It gives NaN or infinity.")
        scale, zero_point = self._output["quantization"]
        if not scale:
            return row
        return (row.astype("float32") - np.float32(zero_point)) * np.float32(scale)


def most_probable(
    class_names: Sequence[str], probabilities: np.ndarray, count: int | None = None
) -> list[tuple[str, float]]:
    """Names and probabilities of the first `count` classes, the largest first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(class_names[i], float(probabilities[i])) for i in order]


def _interpreter() -> type:
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
