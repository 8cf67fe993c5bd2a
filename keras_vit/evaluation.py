"""How right the predictions are: top-1, top-5, by class, confusion. NumPy only."""

import dataclasses
from typing import Any

import numpy as np

# Standard deviations of guessing that a figure must be away from it.
_SURE = 2.0
# The part of all answers that are one class, and how much more that is than its part of
# the images, from which on nothing else was learnt.
_NEARLY_ALL = 0.9
_MORE = 0.1


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


def gives_probabilities(output: np.ndarray) -> bool:
    """Whether rows are probabilities already: none negative, each summing to 1."""
    sums = output.astype("float64").sum(axis=-1)
    return bool((output >= 0).all() and np.allclose(sums, 1.0, atol=1e-2))


def chance_limit(labels: np.ndarray) -> float:
    """Top-1, 0..1, up to which a model may as well always name the largest class.

    Args:
        labels: Integers `(count,)`.
    """
    share = _largest_share(labels)
    return share + _SURE * float(np.sqrt(share * (1.0 - share) / len(labels)))


def remarks(labels: np.ndarray, probabilities: np.ndarray) -> tuple[str, ...]:
    """What answers show that learnt nothing, a line each; nothing of others.

    Args:
        labels: Integers `(count,)`.
        probabilities: `(count, num_classes)`.
    """
    predictions = probabilities.argmax(axis=1)
    top1, count = float(np.mean(predictions == labels)), len(labels)
    lines = []
    if top1 <= chance_limit(labels):
        lines.append(
            f"Near chance: top-1 is {top1:.1%} on {count} images, of which the largest "
            f"class has {_largest_share(labels):.1%}."
        )
    order = _better_order(labels, predictions, probabilities.shape[1])
    if order:
        lines.append(
            f"The classes seem to be in another order: with {order} in place of 0, 1, "
            f"2 and so on top-1 would be far higher."
        )
    share = _largest_share(predictions)
    if share >= max(_NEARLY_ALL, _largest_share(labels) + _MORE):
        lines.append(f"{share:.1%} of {count} images get one class.")
    return tuple(lines)


def _better_order(labels: np.ndarray, predictions: np.ndarray, count: int) -> str:
    """For each class that is predicted the one that it mostly is, if that is another
    order of them and right where the given one is no better than chance."""
    confusion = np.bincount(count * labels + predictions, minlength=count**2)
    meant = confusion.reshape(count, count).argmax(axis=0)
    right = float(np.mean(meant[predictions] == labels))
    given = float(np.mean(predictions == labels))
    is_order = sorted(meant) == list(range(count))
    if not is_order or given > chance_limit(labels) or right < (1 + given) / 2:
        return ""
    return ", ".join(map(str, meant[:10])) + (", ..." if count > 10 else "")


def _largest_share(classes: np.ndarray) -> float:
    return float(np.bincount(classes).max() / len(classes))
