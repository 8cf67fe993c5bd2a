"""Seeded cases of every kind of hostile or unlucky input: words, and never a fault.

`python -m tests.hostile` tries as many as one likes, and says how they ended.
"""

import os
import signal
import time

import pytest

from tests.hostile import drive as driver
from tests.hostile.drive import drive, faults, summary
from tests.hostile.kinds import KINDS

# Of `make test`, as each kind has time for; 1,000 of `make test-long`.
FEW = {"archives": 20, "images": 20, "folders": 8, "kills": 3, "names": 10, "runs": 20}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *((kind, FEW.get(kind, 50)) for kind in KINDS),
        *(pytest.param(kind, 1000, marks=pytest.mark.long) for kind in KINDS),
    ],
)
def test_every_case_ends_in_a_word(kind, count):
    outcomes = drive(KINDS[kind], range(count))
    print(summary(outcomes))
    assert len(outcomes) == count
    assert not faults(outcomes)
    assert len({it.how for it in outcomes}) > 1 or kind == "names"
    assert max(it.peak for it in outcomes) < 3 << 30


def fail(rng):
    """A case that ends badly, each in its own way."""
    how = rng.choice((0, 1, 2, 3, 4))
    if how == 0:
        raise KeyError("missing")
    if how == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == 2:
        time.sleep(60)
    if how == 3:
        return bytearray(driver.MEMORY).hex()
    return "well"


def test_the_driver_tells_what_ended_badly(monkeypatch):
    monkeypatch.setattr(driver, "SECONDS", 1)
    outcomes = driver.try_all(fail, range(20))
    found = {it.how.split("\n")[-2 if "Trace" in it.how else 0] for it in outcomes}
    ends = {"KeyError: 'missing'", "fault: SIGKILL", "fault: SIGALRM", "MemoryError"}
    assert found == ends | {"well"}
    assert len(faults(outcomes).splitlines()) > 10
