"""Where a file runs: on each accelerator wholly, partly or not, and if rightly."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras_vit_device import accelerators
from keras_vit_device.classifier import Classifier

NOT_CARRIED = "not carried"


@dataclasses.dataclass(frozen=True)
class Reach:
    """What one accelerator makes of a file.

    Attributes:
        runs: `"wholly"`, `"partly"`, `"refused"`, or `"missing"` on this machine.
        reason: Why not wholly, or empty.
        agreement: Part of the images with the CPU's class, 0..1; `None` for the CPU.
        distance: Largest total variation from the CPU's probabilities, 0..1, likewise.
        images: How many images it ran on.
        self_test: `"passed"`; `"failed: "` with both answers; `"not carried"`; or empty
            where it does not run.
        latency_ms: Median milliseconds of an image, or `None`.
    """

    runs: str
    reason: str = ""
    agreement: float | None = None
    distance: float | None = None
    images: int = 0
    self_test: str = ""
    latency_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)

    @property
    def is_missing(self) -> bool:
        """Whether this machine has no such accelerator."""
        return self.runs == accelerators.MISSING


def reach(
    classifier: Classifier,
    images: np.ndarray,
    names: Sequence[str] = ("cpu", "gpu"),
    patience: float = accelerators.PATIENCE,
) -> dict[str, Reach]:
    """What each accelerator makes of a file.

    Args:
        classifier: Of the file, on the CPU.
        images: Pixels `(count, height, width, c)`.
        names: Of the accelerators.
        patience: Seconds after which one is taken to hang.

    Raises:
        RuntimeError: If the GPU alone is asked for, and there is none.
    """
    expected = classifier.probabilities(images)
    found = {}
    if "cpu" in names:
        (row,) = classifier.probabilities([classifier.test_image])
        latency = classifier.benchmark(10).median_ms
        found["cpu"] = Reach(
            accelerators.WHOLLY,
            images=len(images),
            self_test=_self_test_result(classifier, row),
            latency_ms=latency,
        )
    if "gpu" in names:
        found["gpu"] = _on_gpu(classifier, images, expected, patience)
        if found["gpu"].is_missing and "cpu" not in names:
            raise RuntimeError(f"There is no GPU here: {found['gpu'].reason}.")
    return found


def _on_gpu(classifier, images, expected, patience) -> Reach:
    asked = np.concatenate([classifier.test_image[None], images])
    trial = classifier.attempt(asked, patience)
    if trial.rows is None:
        return Reach(trial.runs, trial.reason)
    first, rows = trial.rows[0], trial.rows[1:]
    if not len(rows):  # the pattern alone took all the time that there was
        rows, expected = first[None], classifier.probabilities([classifier.test_image])
    expected = expected[: len(rows)]
    same = rows.argmax(axis=1) == expected.argmax(axis=1)
    distance = 0.5 * np.abs(rows - expected).sum(axis=1)
    return Reach(
        trial.runs,
        trial.reason,
        float(same.mean()),
        float(distance.max()),
        len(rows),
        _self_test_result(classifier, first),
        trial.ms,
    )


def _self_test_result(classifier, row) -> str:
    """What the self-test says of an answer to it."""
    if classifier.self_test is None:
        return NOT_CARRIED
    verdict = classifier.judge(row)
    if verdict.passed:
        return "passed"
    return f"failed: {verdict.explain(classifier.class_names)}"
