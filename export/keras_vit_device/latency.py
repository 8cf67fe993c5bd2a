"""How long a model takes for one image. Standard library only."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Self

_WARM_UP = 5


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one image, without decoding and resizing.

    Attributes:
        median_ms: Median of all rounds in milliseconds.
        lowest_ms: The shortest.
        highest_ms: The longest.
    """

    median_ms: float
    lowest_ms: float
    highest_ms: float

    def __str__(self) -> str:
        return f"{self.median_ms:.2f} ms ({self.lowest_ms:.2f}..{self.highest_ms:.2f})"

    @classmethod
    def of(cls, run: Callable[[], object], rounds: int) -> Self:
        """Times calls, after five that warm up.

        Raises:
            ValueError: If the rounds are not positive.
        """
        if rounds < 1:
            raise ValueError(f"rounds must be positive. Received: {rounds}")
        times = []
        for _ in range(_WARM_UP + rounds):
            begin = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - begin))
        times = times[_WARM_UP:]
        return cls(statistics.median(times), min(times), max(times))
