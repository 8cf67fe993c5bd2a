"""The digits' model before and after its tokens got an axis more, on the GPU."""

import dataclasses
import functools
import os
from unittest import mock

import numpy as np
from keras_vit_device.classifier import Classifier
from keras_vit_export.exporter import export

import keras_vit
from keras_vit.files import load_model

from .runtimes import GPU, ROOT, variables, why_missing

# Graphs were laid out like this when LiteRT's GPU answered them wrongly, in silence.
OLD = ROOT / "tests/runtimes/old_layout.tflite"


@dataclasses.dataclass(frozen=True)
class Answers:
    """What the GPU makes of one file.

    Attributes:
        count: Number of images.
        top1_on_cpu: Part of them that the CPU names rightly.
        top1_on_gpu: The same of the GPU.
        agreement: Part of them that the GPU names as the CPU does.
        distance: From the answer of the file's self-test, on the GPU.
        passed: Whether it passes that self-test there.
    """

    count: int
    top1_on_cpu: float
    top1_on_gpu: float
    agreement: float
    distance: float
    passed: bool


@functools.cache
def measure() -> dict[str, Answers] | str:
    """By layout; or why it can't be measured here."""
    if reason := why_missing(GPU):
        return reason
    data = keras_vit.load_data("digits")
    model = load_model(ROOT / "models/digits.keras")
    new, _ = export(model, "dynamic_int8", data)
    batches = list(data.test.as_numpy_iterator())
    images, labels = (np.concatenate(it) for it in zip(*batches, strict=True))
    files = {"(n, d), before": OLD, "(1, n, d)": new}
    return {
        name: _answers(Classifier(it), images, labels) for name, it in files.items()
    }


def _answers(classifier, images, labels):
    asked = np.concatenate([classifier.test_image[None], images])
    with mock.patch.dict(os.environ, variables()):
        trial = classifier.attempt(asked)
    verdict = classifier.judge(trial.rows[0])
    on_gpu = trial.rows[1:].argmax(axis=1)
    on_cpu = classifier.probabilities(images).argmax(axis=1)
    parts = (on_cpu == labels, on_gpu == labels, on_cpu == on_gpu)
    figures = (float(it.mean()) for it in parts)
    return Answers(len(images), *figures, verdict.distance, verdict.passed)
