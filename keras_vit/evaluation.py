"""How right the predictions are: top-1, top-5, by class, confusion."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Predictions of held-out images and what they should have been.

    Attributes:
        labels: Integers `(count,)`.
        probabilities: Floats `(count, num_classes)`.
        class_names: Name of each class.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image."""
        return self.probabilities.argmax(axis=1)

    @property
    def top1(self) -> float:
        """Part of the images whose most probable class is right, 0..1."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def top5(self) -> float | None:
        """Part whose class is among the five most probable; for over 10 classes."""
        if self.probabilities.shape[1] <= 10:
            return None
        five = np.argsort(-self.probabilities, axis=1)[:, :5]
        return float(np.mean((five == self.labels[:, None]).any(axis=1)))

    @property
    def confusion(self) -> np.ndarray:
        """Counts `(num_classes, num_classes)`: rows are true, columns predicted."""
        count = self.probabilities.shape[1]
        cells = self.labels * count + self.predictions
        return np.bincount(cells, minlength=count**2).reshape(count, count)

    @property
    def by_class(self) -> dict[str, float | None]:
        """Top-1 of the images of each class; `None` where there are none."""
        confusion = self.confusion
        totals = confusion.sum(axis=1)
        return {
            name: float(confusion[row, row] / totals[row]) if totals[row] else None
            for row, name in enumerate(self.class_names)
        }

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "images": len(self.labels),
            "top1": self.top1,
            "top5": self.top5,
            "by_class": self.by_class,
            "confusion": self.confusion.tolist(),
        }


def are_probabilities(output):
    """Whether rows are probabilities already: none negative, each summing to 1.

    Args:
        output: Array or tensor `(b, num_classes)`.
    """
    sums = ops.sum(ops.cast(output, "float32"), axis=-1)
    return ops.all(output >= 0) & ops.all(ops.abs(sums - 1) < 1e-2)
