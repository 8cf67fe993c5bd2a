"""A budget of top-1 points, and the file that keeps it.

Every decision here is made on the images of choice (validation), never on those that
figures are reported on.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from keras_vit_device.classifier import Classifier
from tqdm import tqdm

from keras_vit_export.candidates import Candidate
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.measure import median_latency_ms, predict

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
        latency_ms: Median milliseconds for one image on one thread.
        holds: Whether the drop is within the budget.
    """

    recipe: str
    protected: int
    top1: float
    drop: float
    latency_ms: float
    holds: bool


def within(
    exporter: Exporter, recipe: str, max_drop: float
) -> tuple[Candidate | None, list[Trial]]:
    """A recipe's file with as few layers in higher precision as the budget takes.

    The layers that do the most damage alone are protected first: none, then 1, 2, 4, 8
    and so on.

    Args:
        exporter: Holds the model and images of choice.
        recipe: Name of the recipe.
        max_drop: Points of top-1 that may be lost.

    Returns:
        The file, or `None` if the budget was never held, and what was tried.

    Raises:
        ValueError: If there are no images of choice.
    """
    judge = _judge(exporter, max_drop)
    image = exporter.splits.compared[0]

    def try_out(made: Candidate) -> Trial:
        return judge(made, _latencies({"it": made}, image)["it"])

    made = exporter.convert(recipe)
    trials = [try_out(made)]
    if not trials[0].holds and QUANTIZATION_RECIPES[recipe].rules:
        order = exporter.most_damaging(made)
        counts = _counts(len(order))
        bar = tqdm(counts, desc="Protecting", leave=False, delay=2, disable=None)
        for count in bar:
            made = exporter.protect(made, order[:count])
            trials.append(try_out(made))
            if trials[-1].holds:
                break
    return (_with_choice(exporter, made) if trials[-1].holds else None), trials


def fastest(
    exporter: Exporter, max_drop: float
) -> tuple[Candidate | None, list[Trial]]:
    """The fastest recipe within the budget, no layer protected; as `within`.

    Recipes that the model does not bear are left out.
    """
    judge = _judge(exporter, max_drop)
    made, _ = exporter.convert_all()
    latencies = _latencies(made, exporter.splits.compared[0])
    trials = [judge(it, latencies[recipe]) for recipe, it in made.items()]
    trials.sort(key=lambda trial: trial.latency_ms)
    best = next((trial.recipe for trial in trials if trial.holds), None)
    return (_with_choice(exporter, made[best]) if best else None), trials


def _with_choice(exporter: Exporter, made: Candidate) -> Candidate:
    count = exporter.splits.counts["choice"]["images"]
    return dataclasses.replace(made, chosen_on=count)


def table(trials: list[Trial]) -> str:
    """The trials as a table in Markdown."""
    lines = [
        "| format | layers protected | validation top-1 | points lost | ms | |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        verdict = "holds" if trial.holds else "too much"
        lines.append(
            f"| {trial.recipe} | {trial.protected} | {trial.top1:.2%} | "
            f"{trial.drop:.2f} | {trial.latency_ms:.2f} | {verdict} |"
        )
    return "\n".join(lines)


def _judge(exporter: Exporter, max_drop: float) -> Callable[[Candidate, float], Trial]:
    images = exporter.splits.choice
    if images is None:
        raise ValueError("A budget needs images with labels to measure top-1 on.")
    labels, rows = predict({"keras": exporter.origin.classifier}, images)
    reference = _top1(labels, rows["keras"])

    def judge(made: Candidate, latency_ms: float) -> Trial:
        classifier = Classifier.of_flatbuffer(made.content)
        top1 = _top1(*_only(predict({"it": classifier}, images)))
        drop = round(100 * (reference - top1), 6)
        return Trial(
            made.recipe.name,
            len(made.protected),
            top1,
            drop,
            latency_ms,
            drop <= max_drop,
        )

    return judge


def _latencies(made: dict[str, Candidate], image: np.ndarray) -> dict[str, float]:
    classifiers = {
        name: Classifier.of_flatbuffer(it.content) for name, it in made.items()
    }
    return median_latency_ms(
        {
            name: lambda it=it: it.probabilities(image[None])
            for name, it in classifiers.items()
        }
    )


def _top1(labels: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean(rows.argmax(axis=1) == labels))


def _only(predictions):
    labels, rows = predictions
    return labels, rows["it"]


def _counts(total: int) -> list[int]:
    counts = [2**power for power in range(total.bit_length())]
    return [count for count in counts if count < total] + [total]
