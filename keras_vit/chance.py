"""Whether a model is better than one that always answers the largest class. NumPy only."""

import math
from collections.abc import Sequence

import numpy as np

from keras_vit.evaluation import Evaluation

# The part of all answers that are one class, and how much more that is than its part of
# the images, from which on nothing else was learnt.
_NEARLY_ALL, _MORE = 0.9, 0.1
_TRY = (
    "More images, more epochs (--resume RUN --epochs N), another --learning-rate, or "
    "--from a pretrained model may help."
)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share of which `hits` in `count` were seen, in 0..1.

    Source: https://doi.org/10.1080/01621459.1927.10502953 (Wilson's score interval).
    """
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (middle - half) / scale, (middle + half) / scale


def beats_chance(hits: int, labels: np.ndarray) -> bool:
    """Whether the interval of a top-1 is above the share of the largest class.

    Args:
        hits: How many images are answered rightly.
        labels: Integers `(count,)`, one or more.
    """
    return wilson_interval(hits, len(labels))[0] > _largest_share(labels)


def against_chance(name: str, hits: int, labels: np.ndarray) -> str | None:
    """What to say where a top-1 doesn't beat chance by its interval, else `None`.

    Args:
        name: Of the figure.
        hits: How many of them are answered rightly.
        labels: Integers `(count,)`. Chance is the share of the most frequent one.
    """
    if beats_chance(hits, labels):
        return None
    count, chance = len(labels), _largest_share(labels)
    low, high = wilson_interval(hits, count)
    return (
        f"{name}, {hits} of {count} ({low:.0%} to {high:.0%} in a 95% interval), does "
        f"not beat chance by its interval: the largest class alone is {chance:.0%}."
    )


def remarks(evaluation: Evaluation, name: str = "Top-1") -> tuple[str, ...]:
    """What answers show that learnt nothing or mean other classes, a sentence each.

    Args:
        evaluation: The answers.
        name: Of their top-1.
    """
    labels, predictions = evaluation.labels, evaluation.predictions
    found = (
        against_chance(name, int(np.sum(predictions == labels)), labels),
        _another_order(evaluation),
        _one_answer(evaluation),
    )
    return tuple(filter(None, found))


def _another_order(evaluation: Evaluation) -> str | None:
    """Where each class is mostly answered by one other, and no better than by chance."""
    labels, predictions = evaluation.labels, evaluation.predictions
    meant = evaluation.confusion.argmax(axis=0)  # by each answer
    right = float(np.mean(meant[predictions] == labels))
    is_order = sorted(meant) == list(range(len(meant)))
    hits = int(np.sum(predictions == labels))
    if not is_order or beats_chance(hits, labels) or right < (1 + evaluation.top1) / 2:
        return None
    names = [evaluation.class_names[index] for index in meant[:10]]
    more = ", ..." if len(meant) > 10 else ""
    return (
        f"The classes seem to be in another order: named {', '.join(names)}{more}, "
        f"top-1 would be {right:.1%}."
    )


def _one_answer(evaluation: Evaluation) -> str | None:
    labels, predictions = evaluation.labels, evaluation.predictions
    share, least = _largest_share(predictions), _largest_share(labels) + _MORE
    if share < max(_NEARLY_ALL, min(least, 1.0)) or len(set(labels.tolist())) == 1:
        return None
    name = evaluation.class_names[np.bincount(predictions).argmax()]
    return f"{share:.0%} of the images are answered with {name!r}."


def _largest_share(classes: np.ndarray) -> float:
    return float(np.bincount(classes).max() / len(classes))


def warnings_of(
    accuracies: Sequence[float],
    epoch: int,
    validation_labels: np.ndarray,
    evaluation: Evaluation,
) -> tuple[str, ...]:
    """What a finished training should not keep to itself; the last says what to try.

    Args:
        accuracies: Of the validation images after each epoch.
        epoch: Number of the epoch that is kept, from 1.
        validation_labels: Integers `(count,)`.
        evaluation: Predictions of the test images.
    """
    hits = round(accuracies[epoch - 1] * len(validation_labels))
    found = [
        against_chance("Validation top-1", hits, validation_labels),
        *remarks(evaluation, "Test top-1"),
    ]
    if len(accuracies) > 2 and len(set(accuracies)) == 1 and accuracies[0] < 1:
        found.append(
            f"Validation accuracy was {accuracies[0]:.1%} after each of the "
            f"{len(accuracies)} epochs: it never moved."
        )
    found = tuple(filter(None, found))
    return (*found, _TRY) if found else ()
