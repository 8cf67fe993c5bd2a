"""A budget of top-1 points, and the file that keeps it.

Every decision here is made on the images of choice (validation), never on those that
figures are reported on.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from keras_vit_device.classifier import Classifier
from tqdm import tqdm

from keras_vit_export.candidates import Candidate
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.measure import (
    median_latency_ms,
    points_lost,
    predict,
)

# Points of top-1 that the fastest recipe may lose where nothing else is said.
DEFAULT_MAX_DROP = 0.5


@dataclasses.dataclass(frozen=True)
class Trial:
    """One file that was tried.

    Attributes:
        recipe: Name of its recipe.
        protected: Number of layers in higher precision.
        top1: Part of the images of choice classified right, 0..1.
        drop: Points of top-1 lost to the Keras model.
        interval: Half the width of the 95 % interval of that, on the same images.
        holds: Whether the drop is within the budget.
        latency_ms: Median milliseconds for one image on one thread, of all trials in
            turn; `None` until they are timed.
    """

    recipe: str
    protected: int
    top1: float
    drop: float
    interval: float
    holds: bool
    latency_ms: float | None = None

    def __str__(self) -> str:
        """A line of what was found; the times come later, of all in turn."""
        layers = f", {self.protected} layers protected" if self.protected else ""
        return (
            f"{self.recipe}{layers}: {self.drop:.2f} +- {self.interval:.2f} points of "
            "top-1 lost"
        )


# Hears of each trial as it ends.
Listener = Callable[[Trial], None]


def within(
    exporter: Exporter,
    recipe: str,
    max_drop: float,
    listener: Listener = lambda trial: None,
) -> tuple[Candidate | None, list[Trial]]:
    """A recipe's file with as few layers in higher precision as the budget takes.

    The layers that do the most damage alone are protected first: none, then 1, 2, 4, 8
    and so on.

    Args:
        exporter: Holds the model and images of choice.
        recipe: Name of the recipe.
        max_drop: Points of top-1 that may be lost.
        listener: Called with each trial as it ends.

    Returns:
        The file, or `None` if the budget was never held, and what was tried.

    Raises:
        ValueError: If there are no images of choice.
    """

    def candidates() -> Iterator[Candidate]:
        made = exporter.convert(recipe)
        yield made
        if QUANTIZATION_RECIPES[recipe].rules:
            damage = exporter.damage(made)
            counts = _counts(len(damage.layers))
            bar = tqdm(counts, desc="Protecting", leave=False, delay=2, disable=None)
            for count in bar:
                yield exporter.protect(made, damage.first(count))

    return _first_that_holds(exporter, candidates(), max_drop, listener)


def fastest(
    exporter: Exporter, max_drop: float, listener: Listener = lambda trial: None
) -> tuple[Candidate | None, list[Trial]]:
    """The fastest recipe within the budget, no layer protected; as `within`.

    Plain files tell how fast each is. Then the fastest is made as well as can be and
    judged, and the next, until one holds: the slower ones need not be tried. Recipes that
    the model does not bear are left out.
    """

    def candidates() -> Iterator[Candidate]:
        plain, _ = exporter.convert_all(plain=True)
        times = _latencies(list(plain.values()), exporter.splits.compared[0])
        for _, name in sorted(zip(times, plain, strict=True)):
            yield exporter.convert(name)

    return _first_that_holds(exporter, candidates(), max_drop, listener)


def _first_that_holds(
    exporter: Exporter,
    candidates: Iterable[Candidate],
    max_drop: float,
    listener: Listener,
) -> tuple[Candidate | None, list[Trial]]:
    """The first of these within the budget, none made after it; as `within`."""
    judge = _judge(exporter, max_drop)
    made, trials = [], []
    for candidate in candidates:
        made.append(candidate)
        trials.append(judge(candidate))
        listener(trials[-1])
        if trials[-1].holds:
            break
    trials = _timed(exporter, made, trials)
    return (_with_choice(exporter, made[-1]) if trials[-1].holds else None), trials


def _with_choice(exporter: Exporter, made: Candidate) -> Candidate:
    count = exporter.splits.counts["choice"]["images"]
    return dataclasses.replace(made, chosen_on=count)


def table(trials: list[Trial]) -> str:
    """The trials as a table in Markdown."""
    lines = [
        "| format | layers protected | validation top-1 | points lost, 95 % | ms | |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        verdict = "holds" if trial.holds else "too much"
        lines.append(
            f"| {trial.recipe} | {trial.protected} | {trial.top1:.2%} | "
            f"{trial.drop:.2f} ± {trial.interval:.2f} | {trial.latency_ms:.2f} | "
            f"{verdict} |"
        )
    return "\n".join(lines)


def _judge(exporter: Exporter, max_drop: float) -> Callable[[Candidate], Trial]:
    images = exporter.splits.choice
    if images is None:
        raise ValueError("A budget needs images with labels to measure top-1 on.")
    labels, rows = predict({"keras": exporter.origin.classifier}, images)
    reference = rows["keras"].argmax(axis=1) == labels

    def judge(made: Candidate) -> Trial:
        classifier = Classifier.of_flatbuffer(made.content)
        _, found = predict({"it": classifier}, images)
        right = found["it"].argmax(axis=1) == labels
        drop, interval = points_lost(reference, right)
        drop = round(drop, 6)
        return Trial(
            made.recipe.name,
            len(made.protected),
            float(right.mean()),
            drop,
            interval,
            drop <= max_drop,
        )

    return judge


def _timed(
    exporter: Exporter, made: Sequence[Candidate], trials: Sequence[Trial]
) -> list[Trial]:
    """The trials with their latencies, measured in turn so that noise hits all alike."""
    times = _latencies(made, exporter.splits.compared[0])
    pairs = zip(trials, times, strict=True)
    return [dataclasses.replace(trial, latency_ms=ms) for trial, ms in pairs]


def _latencies(made: Sequence[Candidate], image: np.ndarray) -> list[float]:
    runs = {}
    for index, it in enumerate(made):
        classifier = Classifier.of_flatbuffer(it.content)
        runs[index] = functools.partial(classifier.probabilities, image[None])
    return list(median_latency_ms(runs).values())


def _counts(total: int) -> list[int]:
    counts = [2**power for power in range(total.bit_length())]
    return [count for count in counts if count < total] + [total]
