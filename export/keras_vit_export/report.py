"""What an export cost: size, top-1, agreement, latency, measured side by side."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_vit.evaluation import Evaluation
from keras_vit_export.classifiers import AnyClassifier, KerasClassifier
from keras_vit_export.runtime import Classifier

LATENCY_ROUNDS = 50


@dataclasses.dataclass(frozen=True)
class Report:
    """Measurements of one model file against the Keras model it came from.

    Attributes:
        recipe: Name of the recipe; `"keras"` for the Keras model itself.
        size_bytes: Size of the file in bytes; of Keras, that of the weights.
        top1: Part of the images classified right, 0..1; `None` if not measured.
        agreement: Part of the images with the Keras model's class, 0..1, or `None`.
        max_difference: Largest difference from the Keras model's probabilities.
        latency_ms: Median milliseconds for one image, one thread of LiteRT; Keras'
            own threads for Keras.
        images: Number of images measured on; random pixels if `top1` is `None`.
        operations: How many of each operation the file has.
    """

    recipe: str
    size_bytes: int
    top1: float | None
    agreement: float | None
    max_difference: float
    latency_ms: float
    images: int
    operations: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)


def measure(
    reference: KerasClassifier,
    candidates: dict[str, Classifier],
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
        RuntimeError: If a model answers with infinities or no numbers.
    """
    everyone = {"keras": reference} | candidates
    labelled = images is not None
    images = images if labelled else _random_pixels(reference)
    labels, probabilities = predict(everyone, images)
    for name, rows in probabilities.items():
        if not np.isfinite(rows).all():
            raise RuntimeError(f"The {name} model answers with numbers that are none.")
    keras_classes = probabilities["keras"].argmax(axis=1)
    example = next(images.as_numpy_iterator())[0][:1]
    latencies = median_latency_ms(
        {
            name: lambda one=one: one.probabilities(example)
            for name, one in everyone.items()
        }
    )

    def report(name: str) -> Report:
        classes = probabilities[name].argmax(axis=1)
        difference = np.abs(probabilities[name] - probabilities["keras"]).max()
        return Report(
            recipe=name,
            size_bytes=everyone[name].size_bytes,
            top1=float(np.mean(classes == labels)) if labelled else None,
            agreement=float(np.mean(classes == keras_classes)) if labelled else None,
            max_difference=float(difference),
            latency_ms=latencies[name],
            images=len(labels),
            operations=everyone[name].operations,
        )

    return {name: report(name) for name in everyone}


def predict(
    classifiers: dict[str, AnyClassifier], images: tf.data.Dataset
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels, and each classifier's probabilities, of every image."""
    labels = []
    rows = {name: [] for name in classifiers}
    bar = tqdm(
        images.as_numpy_iterator(),
        desc="Measuring",
        total=_length(images),
        leave=False,
        delay=2,
        disable=None,  # unless a person is watching
    )
    for batch, batch_labels in bar:
        labels.append(batch_labels)
        for name, classifier in classifiers.items():
            rows[name].append(classifier.probabilities(batch))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return np.concatenate(labels), joined


def evaluate(classifier: AnyClassifier, images: tf.data.Dataset) -> Evaluation:
    """Predicts every image of a data set of (images, labels) batches."""
    labels, probabilities = predict({"it": classifier}, images)
    return Evaluation(labels, probabilities["it"], classifier.class_names)


def median_latency_ms(
    runs: dict[str, Callable[[], object]], rounds: int = LATENCY_ROUNDS
) -> dict[str, float]:
    """Median milliseconds of each call, taken in turn so that noise hits all alike."""
    times = {name: [] for name in runs}
    for turn in range(rounds + 5):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 5:  # the first calls warm caches up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def table(reports: dict[str, Report]) -> str:
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
