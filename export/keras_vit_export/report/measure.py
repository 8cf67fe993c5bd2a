"""What an export cost: size, top-1, agreement, latency, measured side by side."""

import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata as packages
from typing import Any

import numpy as np
import tensorflow as tf
from keras_vit_device.classifier import Classifier
from tqdm import tqdm

from keras_vit.chance import remarks
from keras_vit.evaluation import Evaluation
from keras_vit_export.activations import snr_db
from keras_vit_export.any_classifier import AnyClassifier
from keras_vit_export.gpu.reach import Reach
from keras_vit_export.keras_classifier import KerasClassifier

LATENCY_ROUNDS = 30
# Slow models get fewer rounds, but no fewer than this.
_LEAST_ROUNDS = 5
_LATENCY_SECONDS = 10.0
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "litert-quantizer", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Measurements of one model file against the Keras model it came from.

    Attributes:
        recipe: Name of the recipe; `"keras"` for the Keras model itself.
        size_bytes: Size of the file in bytes; of Keras, that of the weights.
        top1: Part of the images classified right, 0..1; `None` if not measured.
        agreement: Part of the images with the Keras model's class, 0..1, or `None`.
        tied_top1: Part of the images whose two largest probabilities are equal, 0..1.
        max_difference: Largest difference from the Keras model's probabilities.
        mean_difference: Mean absolute difference from them.
        cosine: Cosine between all probabilities and the Keras model's.
        snr_db: Power of the Keras model's probabilities over that of the difference.
        latency_ms: Median milliseconds for one image, one thread of LiteRT; Keras'
            own threads for Keras.
        latency_all_threads_ms: The same on `threads` threads; `None` for Keras.
        threads: Number of threads of that.
        peak_memory_bytes: What loading and running the file adds to a process, at its
            peak; `None` for Keras or where the system does not tell.
        images: Number of images measured on; random pixels if `top1` is `None`.
        splits: What images were used for: `{"calibration": {"split": "train",
            "images": 64}, ...}`.
        operations: How many of each operation the file has, by precision.
        skipped: Operations that a rule names but that stayed in floats, by kind.
        layer_snr_db: Power over error of each layer's output, first layer first, on four
            images of choice, or random pixels where there are none.
        rewrites: Names of the exact rewrites that were applied.
        not_rewritten: Why there are none; empty if there are.
        chosen: How ranges of activations were chosen, and weights rounded if not to the
            nearest; or empty.
        smoothed: Names of the branches whose norm shares a scale with its readers.
        rotated: What of the graph was rotated, in words, or empty.
        not_rotated: Why its stream could not be; empty if it could, or need not.
        protected: Operations kept in higher precision.
        undecided: Part of the images of choice, 0..1, whose tokens are pruned by scores
            that rounding may turn round; `None` where nothing is pruned.
        pitfalls: Operations that some GPU answers wrongly or refuses, with the reason,
            by name; none in graphs of ours.
        half: What 16-bit floats, as of GPUs and NPUs, make of the float model:
            `Half.as_dict()`.
        shrunk: Factor of each norm that would overflow there, by its name.
        weak_self_test: Whether wrong answers may pass the file's self-test.
        pixels: How it is known what range of pixels the model takes; empty if it isn't.
        output: What the model's own numbers are, and how that is known.
        taken_for_granted: What nothing in the model tells, and how it was checked.
        remarks: What answers on images with labels show that learnt nothing.
        accelerators: What each makes of the file, by name: `Reach`.
        environment: Hardware and versions.
    """

    recipe: str
    size_bytes: int
    top1: float | None
    agreement: float | None
    tied_top1: float
    max_difference: float
    mean_difference: float
    cosine: float
    snr_db: float
    latency_ms: float
    latency_all_threads_ms: float | None
    threads: int
    peak_memory_bytes: int | None
    images: int
    operations: dict[str, dict[str, int]]
    splits: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    layer_snr_db: dict[str, float] = dataclasses.field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    not_rewritten: str = ""
    chosen: str = ""
    smoothed: tuple[str, ...] = ()
    rotated: str = ""
    not_rotated: str = ""
    protected: tuple[str, ...] = ()
    undecided: float | None = None
    pitfalls: dict[str, str] = dataclasses.field(default_factory=dict)
    half: dict[str, Any] = dataclasses.field(default_factory=dict)
    shrunk: dict[str, float] = dataclasses.field(default_factory=dict)
    weak_self_test: bool = False
    pixels: str = ""
    output: str = ""
    taken_for_granted: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    accelerators: dict[str, Reach] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)


def measure(
    reference: KerasClassifier,
    candidates: Mapping[str, Classifier],
    images: tf.data.Dataset | None,
) -> dict[str, Report]:
    """Measures the Keras model and its exports on the same images.

    Args:
        reference: The Keras model.
        candidates: Exports by recipe.
        images: Batches of images and labels, or `None` for random pixels.

    Returns:
        Reports by recipe, that of the Keras model first as `"keras"`.

    Raises:
        ValueError: If a label is no class of the model, or a model gives NaN or
            infinity.
    """
    everyone: dict[str, Any] = {"keras": reference} | dict(candidates)
    labelled = images is not None
    images = images if labelled else _random_pixels(reference)
    labels, probabilities = predict(everyone, images)
    example = next(images.as_numpy_iterator())[0][:1]
    threads = os.cpu_count() or 1
    one, many = _latencies(everyone, threads, example)
    expected = probabilities["keras"]

    def report(name: str) -> Report:
        rows, it = probabilities[name], everyone[name]
        classes = rows.argmax(axis=1)
        agreement = float(np.mean(classes == expected.argmax(axis=1)))
        return Report(
            recipe=name,
            size_bytes=it.size_bytes,
            top1=float(np.mean(classes == labels)) if labelled else None,
            agreement=agreement if labelled else None,
            tied_top1=float(np.mean(_count_ties(rows))),
            **_differences(expected, rows),
            latency_ms=one[name],
            latency_all_threads_ms=many.get(name),
            threads=threads,
            peak_memory_bytes=None
            if it is reference
            else _peak_memory_bytes(it.content),
            images=len(labels),
            remarks=remarks(Evaluation(labels, rows, it.class_names))
            if labelled
            else (),
            operations=it.operations,
            environment=environment(),
        )

    return {name: report(name) for name in everyone}


def _differences(expected: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    expected, rows = expected.astype("float64"), rows.astype("float64")
    norms = np.linalg.norm(expected) * np.linalg.norm(rows)
    return {
        "max_difference": float(np.abs(rows - expected).max()),
        "mean_difference": float(np.abs(rows - expected).mean()),
        "cosine": float(np.sum(expected * rows) / max(norms, 1e-300)),
        "snr_db": snr_db(expected, rows),
    }


def _count_ties(rows: np.ndarray) -> np.ndarray:
    two = np.sort(rows, axis=1)[:, -2:]
    return two[:, 0] == two[:, 1]


def predict(
    classifiers: Mapping[str, AnyClassifier], images: tf.data.Dataset
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels, and each classifier's probabilities, of every image.

    Raises:
        ValueError: If a label is no class of the classifiers, or one of these gives
            NaN or infinity.
    """
    labels = []
    rows = {name: [] for name in classifiers}
    classes = min(len(it.class_names) for it in classifiers.values())
    bar = tqdm(
        images.as_numpy_iterator(),
        desc="Measuring",
        total=_length(images),
        leave=False,
        delay=2,
        disable=None,  # unless a person is watching
    )
    for batch, batch_labels in bar:
        batch_labels = _one_label_each(batch_labels)
        if np.min(batch_labels) < 0 or np.max(batch_labels) >= classes:
            raise ValueError(
                f"Labels must be in 0..{classes - 1}, one for each class of the model. "
                f"Received: {np.min(batch_labels)}..{np.max(batch_labels)}"
            )
        labels.append(batch_labels)
        for name, classifier in classifiers.items():
            rows[name].append(classifier.probabilities(batch))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return np.concatenate(labels), joined


def _one_label_each(labels: np.ndarray) -> np.ndarray:
    """Integers `(b,)`, also from `(b, 1)`."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "Labels must be integers, one an image. Received: "
            f"{labels.dtype} of shape {labels.shape}"
        )
    return labels


def evaluate(classifier: AnyClassifier, images: tf.data.Dataset) -> Evaluation:
    """Predicts every image of a data set of (images, labels) batches."""
    labels, probabilities = predict({"it": classifier}, images)
    return Evaluation(labels, probabilities["it"], classifier.class_names)


def _latencies(
    classifiers: Mapping[str, Any], threads: int, example: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds for one image, on one thread and on several.

    Args:
        classifiers: By name; a `KerasClassifier` is only timed with its own threads.
        threads: How many several are.
        example: One image `(1, height, width, c)`.
    """
    runs = {
        (name, 1): lambda it=it: it.probabilities(example)
        for name, it in classifiers.items()
    }
    if threads > 1:
        for name, it in classifiers.items():
            if isinstance(it, Classifier):
                more = Classifier.of_flatbuffer(it.content, threads)
                runs[name, threads] = lambda it=more: it.probabilities(example)
    medians = median_latency_ms(runs)
    one = {name: medians[name, 1] for name in classifiers}
    many = {
        name: medians.get((name, threads), one[name])
        for name, it in classifiers.items()
        if isinstance(it, Classifier)
    }
    return one, many


def points_lost(reference: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Points of top-1 lost, and half the width of their 95 % interval.

    Args:
        reference: Whether each image was answered rightly before, `(count,)`; or the
            part of several models that did.
        right: The same of the same images now.
    """
    lost = 100 * (np.asarray(reference, float) - right)
    return float(lost.mean()), float(1.96 * lost.std() / np.sqrt(len(lost)))


def median_latency_ms(
    runs: Mapping[Any, Callable[[], object]], rounds: int = LATENCY_ROUNDS
) -> dict[Any, float]:
    """Median milliseconds of each call, taken in turn so that noise hits all alike.

    Each is called once before it is timed: the others have left the caches full of
    their own weights, which makes a model of a tenth of a millisecond look twice as slow.
    """
    times = {name: [] for name in runs}
    start = time.perf_counter()
    for turn in range(-5, rounds):
        for name, run in runs.items():
            run()
            begin = time.perf_counter()
            run()
            if turn >= 0:  # the first turns warm up
                times[name].append(1000 * (time.perf_counter() - begin))
        enough = turn + 1 >= _LEAST_ROUNDS
        if enough and time.perf_counter() - start > _LATENCY_SECONDS:
            break
    return {name: statistics.median(values) for name, values in times.items()}


# Run apart, so that what Python and TensorFlow hold is not counted.
_MEMORY_SCRIPT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024
before = peak()
interpreter = Interpreter(model_content=sys.stdin.buffer.read())
interpreter.allocate_tensors()
interpreter.invoke()
print(peak() - before)
"""


def _peak_memory_bytes(model: bytes) -> int | None:
    """What loading and running a `.tflite` adds to a new process, or `None`."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY_SCRIPT],
        input=model,
        capture_output=True,
        check=False,
    )
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def environment() -> dict[str, str]:
    """Processor, cores, system and versions."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    return found | {name: packages.version(name) for name in _PACKAGES}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()


def table(reports: Mapping[str, Report]) -> str:
    """The reports as a table in Markdown."""
    lines = [
        "| format | MB | top-1 | agreement with Keras | ms an image |",
        "|---|---|---|---|---|",
    ]
    for report in reports.values():
        top1 = "not measured" if report.top1 is None else f"{report.top1:.2%}"
        agreement = "-" if report.agreement is None else f"{report.agreement:.2%}"
        lines.append(
            f"| {report.recipe} | {report.size_bytes / 1e6:.2f} | {top1} | "
            f"{agreement} | {report.latency_ms:.2f} |"
        )
    return "\n".join(lines)


def _random_pixels(reference: KerasClassifier) -> tf.data.Dataset:
    shape = (
        *reference.preprocessing["image_size"],
        reference.preprocessing["channels"],
    )
    noise = np.random.default_rng(0).integers(0, 256, (16, *shape), "uint8")
    return tf.data.Dataset.from_tensor_slices((noise, np.zeros(16, "int32"))).batch(16)


def _length(images: tf.data.Dataset) -> int | None:
    count = int(images.cardinality())
    return count if count >= 0 else None
