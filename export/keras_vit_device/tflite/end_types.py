"""How the two ends of a `.tflite` hold numbers: as they are, or as integers. NumPy only."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

FLOAT = "float32"
KINDS = (FLOAT, "uint8", "int8", "int16")


@dataclasses.dataclass(frozen=True)
class EndType:
    """Numbers of one end: (integer - zero_point) * scale, where it has a scale.

    Attributes:
        kind: One of `KINDS`.
        scale: Between neighbouring integers; 0 where they are numbers themselves.
        zero_point: The integer that is 0.
    """

    kind: str
    scale: float = 0.0
    zero_point: int = 0

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Self:
        """Of an end as the interpreter describes it."""
        scale, zero_point = details["quantization"]
        return cls(np.dtype(details["dtype"]).name, float(scale), int(zero_point))

    @property
    def is_usable(self) -> bool:
        """Whether it is known which numbers stand for which."""
        signed = self.kind in ("int8", "int16")
        return self.kind in KINDS and (self.scale > 0 or not signed)

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest number; of integers with a scale."""
        limits = np.iinfo(self.kind)
        low, high = (self.numbers(np.array(it)) for it in (limits.min, limits.max))
        return float(low), float(high)

    def store(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as this end holds them; the nearest where it can't."""
        if not self.scale:
            return np.asarray(numbers, self.kind)
        limits = np.iinfo(self.kind)
        steps = np.rint(np.asarray(numbers, "float32") / np.float32(self.scale))
        return np.clip(steps + self.zero_point, limits.min, limits.max).astype(
            self.kind
        )

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """What stored numbers stand for: float32, where this end has a scale."""
        if not self.scale:
            return stored
        shifted = stored.astype("float32") - np.float32(self.zero_point)
        return shifted * np.float32(self.scale)
