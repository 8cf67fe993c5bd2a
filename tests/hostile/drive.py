"""Seeded cases, each in a fork of one process that has TensorFlow loaded.

A job is a function of a module. It takes a random generator, has an empty folder for
itself, in which it is, and returns a word for how the case ended. An exception, a
signal, and a limit of time or of memory that ended it, are faults.
"""

import dataclasses
import functools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tests import processes

# Addresses, of which TensorFlow and its threads take some gigabytes.
MEMORY = 12 << 30
SECONDS = 60
_FAULT = "fault: "


class Kind(NamedTuple):
    """A kind of hostile or unlucky input.

    Attributes:
        job: Tries a case; where something is prepared, its folder is its second
            argument.
        prepare: Makes what all cases share, in a folder that is not there yet.
    """

    job: Callable[..., str]
    prepare: Callable[[pathlib.Path], object] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        seed: Of its generator.
        how: The job's word, or what went wrong.
        seconds: That it took.
        peak: Bytes of memory at most, TensorFlow's among them.
    """

    seed: int
    how: str
    seconds: float
    peak: int

    @property
    def is_fault(self) -> bool:
        return self.how.startswith(_FAULT)


def drive(kind: Kind, seeds: Iterable[int]) -> list[Outcome]:
    """Tries a case of each seed."""
    with tempfile.TemporaryDirectory(prefix="hostile") as folder:
        path, shared = pathlib.Path(folder, "outcomes"), pathlib.Path(folder, "shared")
        job = kind.job
        if kind.prepare is not None:
            assert processes.finished(processes.start(kind.prepare, shared)) == 0
            job = functools.partial(job, shared=shared)
        process = processes.start(_drive, job, list(seeds), path)
        assert processes.finished(process, timeout=None) == 0
        return [Outcome(**it) for it in json.loads(path.read_text())]


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line: counts, the slowest case, the largest peak."""
    slowest = max(outcomes, key=lambda it: it.seconds)
    largest = max(outcomes, key=lambda it: it.peak)
    counts = Counter("fault" if it.is_fault else it.how for it in outcomes)
    words = ", ".join(f"{number:,} {how}" for how, number in counts.items())
    return (
        f"{len(outcomes):,} cases: {words}; {sum(it.seconds for it in outcomes):.0f} s; "
        f"at most {slowest.seconds:.1f} s (seed {slowest.seed}) and "
        f"{largest.peak / 1e6:.0f} MB (seed {largest.seed})"
    )


def faults(outcomes: Sequence[Outcome]) -> str:
    """The first few that should not be."""
    return "\n".join(f"{it.seed}: {it.how}" for it in outcomes if it.is_fault)[:6000]


def try_all(job: Callable[..., str], seeds: Iterable[int]) -> list[Outcome]:
    """The same in forks of this process, which has computed nothing in TensorFlow."""
    return [_in_a_fork(job, seed) for seed in seeds]


def _drive(job: Callable[..., str], seeds: list[int], path: pathlib.Path) -> None:
    outcomes = try_all(job, seeds)
    path.write_text(json.dumps([dataclasses.asdict(it) for it in outcomes]))


def _in_a_fork(job: Callable[..., str], seed: int) -> Outcome:
    folder = tempfile.mkdtemp(prefix="case")
    reading, writing = os.pipe()
    begin = time.perf_counter()
    if (number := os.fork()) == 0:
        os.chdir(folder)
        os.write(writing, _word(job, seed).encode("utf-8", "backslashreplace"))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        how = file.read().decode()
    _, status, used = os.wait4(number, 0)
    if os.WIFSIGNALED(status):
        how = f"{_FAULT}{signal.Signals(os.WTERMSIG(status)).name}"
    shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - begin
    return Outcome(seed, how, round(seconds, 3), 1024 * used.ru_maxrss)


def _word(job: Callable[..., str], seed: int) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)  # by default it kills
    try:
        return job(random.Random(seed))
    except BaseException:  # noqa: BLE001 - whatever it is, it is a fault
        return _FAULT + traceback.format_exc()[-700:]
