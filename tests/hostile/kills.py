"""Bulk runs that are killed at any moment, and go on."""

import os
import pathlib
import random
import signal
import time

from keras_vit_device import bulk

from tests.device.bulk.running import DIGITS, read, write_digits

COUNT = 90  # images


def prepare(folder: pathlib.Path) -> pathlib.Path:
    write_digits(folder, COUNT)
    return folder


def kill(rng: random.Random, shared: pathlib.Path) -> str:
    """Nothing is printed, no worker is left, and each row is there once."""
    output = pathlib.Path("out.csv").absolute()
    killed = 0
    for _ in range(2):
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.setsid()
            for stream in (1, 2):
                os.dup2(writing, stream)  # workers have it too
            bulk.classify_folder(DIGITS, shared, output, workers=rng.choice((1, 2)))
            os._exit(0)
        os.close(writing)
        time.sleep(rng.random() ** 2 * 1.5)
        os.kill(child, rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        killed += os.waitpid(child, 0)[1] != 0
        with open(reading, "rb") as file:
            assert not (text := file.read()), text  # to the end of the last worker
    bulk.classify_folder(DIGITS, shared, output, workers=1)
    names = [row["file"] for row in read(output.read_bytes())]
    assert len(names) == len(set(names)) == COUNT
    return f"killed {killed} times"
