"""The self-test that a `.tflite` carries: an input, and the answer of the checked run.

A file that was right on one processor may be wrong on the next, in silence. So whoever
loads one runs it once on a pattern that four lines of any language can draw, and holds
the answer against the one that is stored. NumPy only.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from keras_vit_device.terminal import one_line

KEY = "self_test"  # in the contract
# h * h of two numbers below it fits into 32 bits with a sign, as Kotlin's Int.
_PRIME = 46337
# Of more classes, only this many are stored, the most probable ones: some 10 kB.
ALL_CLASSES, MOST_PROBABLE = 1000, 500
# Beside this, how far rounding moves an answer may be neglected.
_DECIMALS = 5
# A pattern that scores this is taken without looking at more.
_ENOUGH = 0.25
_MOST = 0.5  # beyond which anything would pass

Answer = Callable[[np.ndarray], np.ndarray]


class UselessError(ValueError):
    """A file's self-test is damaged, or that of another model."""


@dataclasses.dataclass(frozen=True)
class Pattern:
    """An image by integer arithmetic: squares of pseudo-random brightness.

    Attributes:
        seed: Which pattern.
        cell: Side of the squares in pixels.
        low: Darkest value, 0..255.
        span: Brightest less darkest value.
    """

    seed: int
    cell: int
    low: int
    span: int

    @property
    def is_drawable(self) -> bool:
        """Whether its numbers are those of a pattern, whatever a file may hold."""
        numbers = dataclasses.astuple(self)
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and self.seed < _PRIME
            and self.cell > 0
            and self.low + self.span <= 255
        )

    def draw(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Uint8 `(height, width, c)`.

        For pixel (y, x) and channel c, all of it in integers:
        h = (7919 (y / cell) + 10007 (x / cell) + 12553 c + 15401 seed) mod 46337,
        v = ((h h mod 46337) + 12345) mod 46337, pixel = low + (v h mod 46337) mod 256
        span / 255.
        """
        y, x, c = np.ogrid[: shape[0], : shape[1], : shape[2]]
        cells = 7919 * (y // self.cell) + 10007 * (x // self.cell)
        h = (cells + 12553 * c + 15401 * self.seed) % _PRIME
        v = (h * h % _PRIME + 12345) % _PRIME * h % _PRIME
        return (self.low + v % 256 * self.span // 255).astype("uint8")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How an answer compares with the stored one.

    Attributes:
        distance: Total variation: half the sum of all absolute differences, 0..1.
        tolerance: The largest distance that passes.
        expected: The most probable class in the checked run, and its probability.
        given: The same of the answer; NaN if it holds no numbers.
    """

    distance: float
    tolerance: float
    expected: tuple[int, float]
    given: tuple[int, float]

    @property
    def passed(self) -> bool:
        """Whether the answer is the checked one, up to the recipe's tolerance."""
        return self.distance <= self.tolerance  # not of NaN

    def explain(self, class_names: tuple[str, ...]) -> str:
        """Both answers in words."""
        expected, given = (
            f"{class_names[index]} {part:.1%}"
            for index, part in (self.expected, self.given)
        )
        return (
            f"expected {expected}, got {given}, distance {self.distance:.2g} where "
            f"{self.tolerance:g} is allowed"
        )


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """A pattern and what a model answered to it when it was checked.

    Attributes:
        pattern: The input.
        classes: Index of each class whose probability is stored.
        probabilities: Of these classes.
        tolerance: The largest total variation that other runtimes' rounding may cause.
        sha256: Of the flatbuffer that answered.
    """

    pattern: Pattern
    classes: np.ndarray
    probabilities: np.ndarray
    tolerance: float
    sha256: str

    def judge(self, probabilities: np.ndarray) -> Verdict:
        """Compares the answer `(num_classes,)` of any runtime with the stored one."""
        row = np.asarray(probabilities, np.float64)
        stored = row[self.classes]
        # What is not stored counts as one class.
        rest = (row.sum() - stored.sum()) - (1 - self.probabilities.sum())
        rest = 0.0 if len(stored) == len(row) else abs(rest)
        distance = 0.5 * (np.abs(stored - self.probabilities).sum() + rest)
        best = int(self.probabilities.argmax())
        top = int(row.argmax())
        return Verdict(
            float(distance),
            self.tolerance,
            (int(self.classes[best]), float(self.probabilities[best])),
            (top, float(row[top])),
        )

    @property
    def weak(self) -> bool:
        """Whether wrong answers may pass: the model is all but sure, or knows nothing."""
        rest = 1 - self.probabilities.sum()
        away = np.abs(self.probabilities - self.probabilities.mean()).sum() / 2 + rest
        return bool(min(1 - self.probabilities.max(), away) <= self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """For the contract; JSON types."""
        known = {
            "pattern": dataclasses.asdict(self.pattern),
            "probabilities": self.probabilities.round(_DECIMALS).tolist(),
            "tolerance": self.tolerance,
            "sha256": self.sha256,
        }
        if np.array_equal(self.classes, np.arange(len(self.classes))):
            return known
        return known | {"classes": self.classes.tolist()}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Self:
        """What `as_dict` gave; raises whatever damage makes."""
        probabilities = _numbers(known["probabilities"])
        classes = _numbers(known.get("classes", [*range(len(probabilities))]))
        (tolerance,) = _numbers([known["tolerance"]])
        pattern = known["pattern"]
        return cls(
            Pattern(*(pattern[it.name] for it in dataclasses.fields(Pattern))),
            np.array(classes),
            np.array(probabilities, np.float64),
            float(tolerance),
            known["sha256"],
        )


def _numbers(found: Any) -> list[int | float]:
    """The same, if JSON had a list of numbers: NumPy reads others out of text too."""
    if isinstance(found, list) and all(type(it) in (int, float) for it in found):
        return found
    raise TypeError(f"No numbers: {found!r:.60}")


def find_self_test(contract: Mapping[str, Any], num_classes: int) -> SelfTest | None:
    """The self-test in a file's contract, or `None` where it carries none.

    Raises:
        UselessError: If it is damaged, or was made for another flatbuffer.
    """
    if KEY not in contract:
        return None
    try:
        found = SelfTest.from_dict(contract[KEY])
        whole = (
            found.pattern.is_drawable
            and found.classes.dtype.kind == "i"
            and found.classes.shape == found.probabilities.shape
            and len(found.classes) == min(num_classes, len(found.classes)) > 0
            and 0 <= found.classes.min()
            and found.classes.max() < num_classes
            and np.isfinite(found.probabilities).all()
            and 0 < found.tolerance < 1
        )
    except Exception as error:  # whatever a file may hold
        reason = one_line(error, 100)
        raise UselessError(f"its self-test is damaged. {reason}") from error
    if not whole:
        raise UselessError("its self-test is damaged.")
    if not found.sha256 or found.sha256 != contract.get("sha256"):
        raise UselessError("its self-test is that of another model.")
    return found


def make_self_test(
    answer: Answer,
    exact: Answer,
    short: Answer,
    shape: tuple[int, int, int],
    tolerance: float,
    sha256: str,
) -> SelfTest:
    """The self-test on the pattern that sets classes apart, and that rounding moves least.

    Args:
        answer: The checked run, from an image `(height, width, c)` of uint8 to
            probabilities `(num_classes,)`.
        exact: The same in 32-bit floats, before a recipe rounded anything.
        short: The same in 16-bit floats.
        shape: (height, width, c) of the image.
        tolerance: The recipe's. It is more where rounding moves the answer by more than
            half of it: another runtime rounds as much, and elsewhere.
        sha256: Of the flatbuffer that answers.
    """
    best, most = None, -math.inf
    for pattern in _patterns(int(min(shape[:2]))):
        image = pattern.draw(shape)
        row, unrounded = answer(image), exact(image)
        moved = _distance(row, unrounded)
        if (score := _score(row) - moved) > most:
            best, most = (pattern, row, unrounded, moved), score
        if most >= _ENOUGH:
            break
    pattern, row, unrounded, moved = best
    moved = max(moved, _distance(short(pattern.draw(shape)), unrounded))
    tolerance = min(max(tolerance, 2 * moved), _MOST)
    classes = np.arange(len(row))
    if len(row) > ALL_CLASSES:
        classes = np.sort(np.argsort(-row, kind="stable")[:MOST_PROBABLE])
    kept = np.asarray(row, np.float64)[classes].round(_DECIMALS)
    return SelfTest(pattern, classes, kept, tolerance, sha256)


def _distance(row: np.ndarray, other: np.ndarray) -> float:
    """Total variation; 0 of an answer that holds no numbers, which is no measure."""
    distance = 0.5 * np.abs(np.subtract(row, other, dtype=np.float64)).sum()
    return float(np.nan_to_num(distance, posinf=0.0))


def _patterns(side: int) -> Iterator[Pattern]:
    """Coarse and fine, dark and bright, strong and faint; the likeliest ones first."""
    for seed in range(3):
        for low, span in (
            (0, 255),
            (64, 127),
            (0, 127),
            (127, 128),
            (191, 64),
            (0, 64),
        ):
            for parts in (4, 2, 14):
                yield Pattern(seed, max(1, side // parts), low, span)


def _score(row: np.ndarray) -> float:
    """Lowest where two classes are as good as tied, or one is certain.

    Of a certain class a wrong answer may be as certain.
    """
    second, first = np.sort(row)[-2:]
    return float(min(first - second, 1 - first))
