"""Throughput of `keras-vit classify FOLDER --output CSV` over worker processes.

    python benchmarks/bulk.py --images 10000

Prints the machine, the versions and a Markdown table of runs taken in turn, each as the
median of rounds (lowest and highest): images a second, and what part that is of cores x
the run with one worker. Cores that other work uses too, or that share their units, can't
give that whole. So a third run has one command of one worker a core, all at once, each on
a share of the images: nothing to wait for or to put in order. All of it counts: starting
Python and the workers, decoding, resizing, the model, writing.

The model is Ti/16 at 64 px, dynamic_int8; the images are JPEG files of 256 x 192 px.
Weights and images are random.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from figures import Figure, machine
from keras_vit_export import export
from PIL import Image
from tqdm import tqdm

import keras_vit

CORES = len(os.sched_getaffinity(0))


def main() -> None:
    options = parse_options()
    print("\n\n".join(machine().values()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_images(folder / "images", options.images)
        config = keras_vit.ViTConfig.from_variant(
            "Ti/16", image_size=64, num_classes=1000
        )
        content, _ = export(keras_vit.build_vit(config), "dynamic_int8")
        (folder / "model.tflite").write_bytes(content)
        shares = [f"images/{core}" for core in range(CORES)]
        runs = {
            "one worker": (["images"], 1),
            f"{CORES} workers": (["images"], CORES),
            f"{CORES} commands of one worker": (shares, 1),
        }
        rates = {run: [] for run in runs}
        for _ in range(options.rounds):
            for run, (folders, workers) in runs.items():
                rates[run].append(options.images / seconds(folder, folders, workers))
    print(f"\n{options.images:,} images, {options.rounds} rounds\n")
    print(table(rates))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def write_images(folder: pathlib.Path, number: int) -> None:
    """Smooth noise, which costs as much to decode as photographs; a folder a core."""
    rng = np.random.default_rng(0)
    for index in tqdm(range(number), "Images", leave=False, disable=None):
        path = folder / f"{index % CORES}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), "uint8"))
        small.resize((256, 192)).save(path)


def seconds(folder: pathlib.Path, images: list[str], workers: int) -> float:
    """Of one command a folder of images, all at once."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as outputs:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "keras_vit_cli.main", "classify"]
                + [folder / "model.tflite", folder / name]
                + ["--output", f"{outputs}/{index}.csv", "--workers", str(workers)],
                stdout=subprocess.DEVNULL,
            )
            for index, name in enumerate(images)
        ]
        if any(process.wait() for process in started):
            raise RuntimeError("A command failed.")
    return time.perf_counter() - begin


def table(rates: dict[str, list[float]]) -> str:
    """Images a second, and parts of cores x the first run, in Markdown."""
    lines = [
        f"| | images a second | of {CORES} x one worker |",
        "|---|---|---|",
    ]
    ones = next(iter(rates.values()))
    for run, found in rates.items():
        parts = [rate / (CORES * one) for rate, one in zip(found, ones, strict=True)]
        lines.append(f"| {run} | {Figure.of(found)} | {Figure.of(parts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
