"""Runs of `keras-vit classify --output` in processes of their own, and their CSVs."""

import csv
import io
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from PIL import Image
from sklearn.datasets import load_digits

ROOT = pathlib.Path(__file__).parents[3]
DIGITS = ROOT / "models/digits.tflite"
# A shell starts what it runs in the background deaf to interruptions.
PROGRAM = (
    "import signal, sys; from keras_vit_cli.main import main; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
)


def write_digits(folder, count):
    """Real digits as PNG files in seven folders, named so that order matters."""
    images = load_digits().images
    for index in range(count):
        path = folder / f"{index % 7}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (images[index % len(images)] * 15.9).astype("uint8")
        Image.fromarray(pixels).save(path)
    return folder


def start(folder, output, *options):
    arguments = ["classify", DIGITS, folder, "--output", output, *options]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(condition, process=None):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.001)


def children(process):
    """Process numbers of the workers."""
    listed = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [
        int(number)
        for number in listed.read_text().split()
        if b"bulk.workers" in pathlib.Path(f"/proc/{number}/cmdline").read_bytes()
    ]


def read(content):
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def kill_and_go_on(folder, output, seed, kills, expected):
    """Kills with SIGKILL once some random part is written, and starts again.

    Returns:
        How many runs were killed; others were quicker.
    """
    rng, killed = random.Random(seed), 0
    for _ in range(kills):
        process = start(folder, output)
        size = output.stat().st_size if output.exists() else 0
        goal = size + rng.randrange((len(expected) - size) // 2)
        while process.poll() is None:
            if output.exists() and output.stat().st_size > goal:
                process.kill()
                break
            time.sleep(0.0005)
        status, _, err = finished(process)
        assert status in (0, -signal.SIGKILL) and err == ""
        killed += status != 0
    assert finished(start(folder, output))[::2] == (0, "")
    return killed
