"""What the numbers mean that a model gives: classes that exclude each other, or not.

Its rows are looked at, and the loss that it was trained with. NumPy only.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

PROBABILITIES = "probabilities"
LOGITS = "logits"
SIGMOIDS = "probabilities of classes that do not exclude each other (sigmoids)"
EMBEDDING = "vectors of length 1, an embedding"
SCALED = "numbers that sum to the same but not to 1, such as percent"
BOUNDED = "numbers that a tanh or a cosine keeps in -1..1"
NUMBERS = "numbers of no classes"
UNKNOWN = "numbers of unknown meaning"

_OF_CLASSES = (
    "categoricalcrossentropy",
    "sparsecategoricalcrossentropy",
    "categoricalfocalcrossentropy",
)
_OF_SIGMOIDS = ("binarycrossentropy", "binaryfocalcrossentropy")
# Rounding to 8 bits moves each number by up to 1/512.
_NEAR = 1e-2


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a model's numbers are.

    Attributes:
        kind: One of the constants above.
        source: How that is known.
    """

    kind: str
    source: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.source}"

    @property
    def is_known(self) -> bool:
        """Whether probabilities of classes follow from them."""
        return self.kind in (PROBABILITIES, LOGITS)

    @property
    def may_be_logits(self) -> bool:
        """Whether nothing speaks against it."""
        return self.kind == UNKNOWN


def patterns(shape: Sequence[int]) -> list[np.ndarray]:
    """Images that have nothing in common, pixels in 0..255, to see what a model gives.

    Args:
        shape: (height, width, channels).
    """
    rng = np.random.default_rng(0)
    noise = [rng.uniform(0, high, shape) for high in (255, 255, 25)]
    return [*noise, np.zeros(shape), np.full(shape, 255.0)]


def of_rows(rows: np.ndarray, step: float = 0.0) -> Meaning:
    """What rows of several unlike images show by themselves.

    Args:
        rows: `(b, classes)`.
        step: Between neighbouring numbers, where they were integers.
    """
    rows = np.asarray(rows, "float64")
    if not np.isfinite(rows).all():
        return Meaning(UNKNOWN, "some are NaN or infinite")
    # Each may be rounded by half a step; of many small ones nothing is left.
    rounding = min(0.5, rows.shape[1] * step / 2)
    if (rows >= 0).all() and _is_one(rows.sum(axis=1), _NEAR + rounding):
        return Meaning(PROBABILITIES, "rows sum to 1")
    if (rows <= 0).all() and _is_one(np.exp(rows).sum(axis=1)):
        return Meaning(LOGITS, "they are logarithms of probabilities")
    lengths = np.linalg.norm(rows, axis=1)
    if lengths.any() and _is_one(lengths[lengths > 0]):  # black may be no direction
        return Meaning(EMBEDDING, "rows have length 1")
    sums = rows.sum(axis=1)
    if (rows >= 0).all() and sums[0] > 0 and _is_one(sums / sums[0]) and _vary(rows):
        return Meaning(SCALED, f"rows sum to {sums.mean():.4g}")
    if rows.any() and ((rows >= 0) & (rows <= 1)).all():
        return Meaning(SIGMOIDS, "all are in 0..1, and rows don't sum to 1")
    return Meaning(UNKNOWN, "rows neither sum to 1 nor have length 1")


def are_bounded(rows: np.ndarray) -> bool:
    """Whether no number leaves -1..1, as few logits of real images do."""
    return bool((np.abs(rows) <= 1).all())


def _vary(rows: np.ndarray) -> bool:
    """Whether they are not the same row again and again."""
    return not np.allclose(rows, rows[0], rtol=1e-3, atol=1e-6)


def of_loss(loss: Any) -> Meaning | None:
    """What the loss of a Keras model says, as `get_compile_config` has it, or `None`."""
    if isinstance(loss, dict) and "class_name" not in loss:
        loss = list(loss.values())
    if isinstance(loss, list) and len(loss) == 1:  # of the one output
        loss = loss[0]
    name, options = loss, {}
    if isinstance(loss, dict) and "class_name" in loss:
        config = loss.get("config")
        # A function has its name there.
        name = config if isinstance(config, str) else loss["class_name"]
        options = config if isinstance(config, dict) else {}
    if not isinstance(name, str):
        return None
    kind = name.replace("_", "").lower()
    if kind in _OF_CLASSES:
        source = f"its loss, {name} of logits"
        return Meaning(LOGITS, source) if options.get("from_logits") else None
    if kind in _OF_SIGMOIDS:
        return Meaning(SIGMOIDS, f"its loss is {name}")
    return Meaning(NUMBERS, f"its loss is {name}")


def as_said(found: Meaning) -> Meaning:
    """Logits, because a user says so.

    Raises:
        ValueError: If they were found to be probabilities.
    """
    if found.kind == PROBABILITIES:
        raise ValueError(
            f"The model gives probabilities already: {found.source}. Received: logits"
        )
    return Meaning(LOGITS, "it was said")


def explain(meaning: Meaning, row: np.ndarray, names: Sequence[str]) -> str:
    """Why a model is no classifier, and what would have been made of an answer.

    Args:
        meaning: Of a kind that is not known to be of classes.
        row: One that it gave, `(classes,)`.
        names: Of the classes.
    """
    best = int(np.argmax(row))
    with np.errstate(all="ignore"):
        shares = np.exp(row - row[best], dtype="float64")
        share = shares[best] / shares.sum()
    said = (
        f"The model gives {meaning.kind}: {meaning.source}. A softmax would make of "
        f'them that random pixels show "{names[best]} {share:.1%}"'
    )
    if meaning.kind == UNKNOWN:
        return (
            f"{said}, and no loss in the file says that they are logits. If they are, "
            "say it: --logits (logits=True)."
        )
    return (
        f"{said}. A classifier ends in a softmax or in logits; where these are logits "
        "all the same, say it: --logits (logits=True)."
    )


def _is_one(numbers: np.ndarray, near: float = _NEAR) -> bool:
    return bool(np.allclose(numbers, 1.0, rtol=0, atol=near))
