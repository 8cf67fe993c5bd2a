"""Whether a model is better than one that always answers the largest class. NumPy only."""

import math
from collections.abc import Sequence

import numpy as np

from keras_vit.evaluation import Evaluation

_TRY = (
    "More images, more --epochs, another --learning-rate, or --from a pretrained model "
    "may help."
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


def against_chance(name: str, hits: int, labels: np.ndarray) -> str | None:
    """What to say where a top-1 doesn't beat chance by its interval, else `None`.

    Args:
        name: Of the images.
        hits: How many of them are answered rightly.
        labels: Integers `(count,)`. Chance is the share of the most frequent one.
    """
    count = len(labels)
    low, high = wilson_interval(hits, count)
    chance = np.bincount(labels).max() / count
    if low > chance:
        return None
    return (
        f"{name} top-1, {hits} of {count} ({low:.0%} to {high:.0%} in a 95% interval), "
        f"does not beat chance by its interval: the largest class alone is {chance:.0%}."
    )


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
    labels = evaluation.labels
    hits = round(accuracies[epoch - 1] * len(validation_labels))
    found = [
        against_chance("Validation", hits, validation_labels),
        against_chance("Test", int(np.sum(evaluation.predictions == labels)), labels),
    ]
    if len(accuracies) > 2 and len(set(accuracies)) == 1 and accuracies[0] < 1:
        found.append(
            f"Validation accuracy was {accuracies[0]:.1%} after each of the "
            f"{len(accuracies)} epochs: it never moved."
        )
    answers = np.bincount(evaluation.predictions)
    if answers.max() == len(labels) and len(set(labels.tolist())) > 1:
        name = evaluation.class_names[answers.argmax()]
        found.append(f"Every test image is answered with {name!r}.")
    found = tuple(filter(None, found))
    return (*found, _TRY) if found else ()
