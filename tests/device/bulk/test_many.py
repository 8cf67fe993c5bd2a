"""Ten thousand images: memory, and thirty runs that are killed."""

import contextlib
import pathlib
import time

import numpy as np
import pytest

from .running import children, finished, kill_and_go_on, read, start, write_digits


def peaks(process):
    """Most resident memory in bytes, of the run and of its largest worker."""

    def peak(number):
        try:
            lines = pathlib.Path(f"/proc/{number}/status").read_text().splitlines()
        except OSError:
            return 0
        return max([int(it.split()[1]) * 1024 for it in lines if "VmHWM" in it] + [0])

    own = largest = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            largest = max([largest, *map(peak, children(process))])
        own = max(own, peak(process.pid))
        time.sleep(0.02)
    assert finished(process)[::2] == (0, "")
    return np.array([own, largest])


@pytest.mark.long
def test_ten_thousand_images_killed_and_started_again(tmp_path):
    folder = write_digits(tmp_path / "many", 10_000)
    few = write_digits(tmp_path / "few", 1_000)
    one, many = tmp_path / "one.csv", tmp_path / "many.csv"
    grown = peaks(start(folder, many)) - peaks(start(few, one))
    assert (grown < 8e6).all()  # 10,000 names of images in lists would fit, no images
    expected = many.read_bytes()
    names = [row["file"] for row in read(expected)]
    assert len(names) == len(set(names)) == 10_000
    killed = 0
    for seed in range(10):
        output = tmp_path / f"{seed}.csv"
        killed += kill_and_go_on(folder, output, seed, 3, expected)
        assert output.read_bytes() == expected
    assert killed > 20
