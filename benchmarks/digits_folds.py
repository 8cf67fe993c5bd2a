"""Top-1 on the bundled digits, 5 folds over all 1,797 images.

    python benchmarks/digits_folds.py --seeds 2

Each fold trains the demo's model as the demo does on four fifths (a ninth of it
validates) and measures Keras and the exported files on the last fifth.
"""

import argparse
import platform
import time

import numpy as np
from keras_vit_cli.demo import demo_plan
from keras_vit_export.exporter import export_all
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

import keras_vit
from keras_vit.data import ImageSource, from_arrays
from keras_vit.training.plan import TrainingPlan

FOLDS = 5
EXPORTED = ["float32", "float16", "dynamic_int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each fold")
    options = parser.parse_args()
    results = []
    for seed in range(options.seeds):
        for fold, (source, plan) in enumerate(plans(seed)):
            start = time.monotonic()
            results.append(top1_of(source, plan))
            shown = ", ".join(f"{name} {it:.2%}" for name, it in results[-1].items())
            seconds = time.monotonic() - start
            print(f"seed {seed}, fold {fold}: {shown} ({seconds:.0f} s)", flush=True)
    print(f"\nmean of {FOLDS} folds x {options.seeds} seeds, {platform.machine()}")
    for name in results[0]:
        values = np.array([result[name] for result in results])
        print(f"{name:14} {values.mean():.2%} (from {values.min():.2%})")


def plans(seed: int) -> list[tuple[ImageSource, TrainingPlan]]:
    """The demo's training on each fold; `seed` moves all that is random but folds."""
    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    names = [str(digit) for digit in range(10)]
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    made = []
    for fold, (rest, test) in enumerate(splitter.split(images, labels)):
        number = seed * FOLDS + fold
        train, validation = train_test_split(
            rest, test_size=1 / 9, stratify=labels[rest], random_state=number
        )
        rows = {"train": train, "validation": validation, "test": test}
        source = from_arrays("digits", names, images, labels, rows)
        made.append((source, demo_plan(source, seed=number)))
    return made


def top1_of(source: ImageSource, plan: TrainingPlan) -> dict[str, float]:
    """Top-1 of Keras and of each exported file on the fold's test images."""
    model, data = plan.build(), source.load(seed=plan.seed)
    keras_vit.train(model, data, plan.recipe, seed=plan.seed, verbose=0)
    _, reports = export_all(model, EXPORTED, data.test)
    return {name: report.top1 for name, report in reports.items()}


if __name__ == "__main__":
    main()
