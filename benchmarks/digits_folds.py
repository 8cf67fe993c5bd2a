"""Top-1 on the bundled digits, 5 folds over all 1,797 images.

    python benchmarks/digits_folds.py

Each fold trains the demo's model on four fifths (a ninth of it validates) and measures
Keras and the exported files on the last fifth.
"""

import argparse
import platform
import time

import keras
import numpy as np
from keras_vit_export.exporter import export_all
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

import keras_vit
from keras_vit.pipeline import array_source

RECIPES = ["float32", "float16", "dynamic_int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--variant", default="nano/2")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    splitter = StratifiedKFold(options.folds, shuffle=True, random_state=0)
    results = []
    for fold, (rest, test) in enumerate(splitter.split(images, labels)):
        train, validation = train_test_split(
            rest, test_size=1 / 9, stratify=labels[rest], random_state=fold
        )
        rows = {"train": train, "validation": validation, "test": test}
        start = time.monotonic()
        results.append(run_fold(options, images, labels, rows, fold))
        shown = ", ".join(f"{name} {top1:.2%}" for name, top1 in results[-1].items())
        print(f"fold {fold}: {shown} ({time.monotonic() - start:.0f} s)", flush=True)
    print(
        f"\nmean of {options.folds} folds, {len(labels)} images, {platform.machine()}"
    )
    for name in results[0]:
        values = np.array([result[name] for result in results])
        print(f"{name:14} {values.mean():.2%} (from {values.min():.2%})")


def run_fold(options, images, labels, rows, seed) -> dict[str, float]:
    """Top-1 of Keras and of each exported file on the fold's test images."""
    keras.utils.set_random_seed(seed)
    names = [str(digit) for digit in range(10)]
    data = array_source("digits", names, images, labels, rows).load(seed=seed)
    config = keras_vit.ViTConfig.from_variant(
        options.variant, image_size=8, channels=1, num_classes=10, class_names=names
    )
    model = keras_vit.build_vit(config)
    recipe = keras_vit.TrainingRecipe(
        epochs=options.epochs, learning_rate=options.learning_rate
    )
    keras_vit.train(model, data, recipe, seed=seed, verbose=0)
    _, reports = export_all(model, RECIPES, data.test)
    return {name: report.top1 for name, report in reports.items()}


if __name__ == "__main__":
    main()
