"""What each recipe costs in top-1, on all 10,000 Fashion-MNIST test images.

    python benchmarks/accuracy.py --models runs/accuracy

Trains what is missing in that folder (hours on two cores): `nano/4` with three seeds,
and models of width 384 and depth 12 whose residual stream has channels far above the
others, as pretrained models do: more or fewer of them, larger or smaller. Then it
exports each with every recipe, calibrated on training images, and prints the loss of
top-1 against the float32 file with its paired 95 % interval. `--save` keeps which images
each file named rightly, and `--beside` compares with those of another version of the
code.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras_vit_device.classifier import Classifier
from keras_vit_device.tflite.operations import read_operations
from keras_vit_export.activations import read_all
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.measure import environment, points_lost, predict

import keras_vit

DATASET = "fashion_mnist"
SEEDS = (0, 1, 2)


class Outliers(NamedTuple):
    """Channels of the residual stream that a model writes much larger, and how much."""

    channels: tuple[int, ...]
    factor: float
    seed: int = 0


HARD = {
    "outliers": Outliers((17, 101, 230, 333), 16.0),
    "outliers-two": Outliers((60, 290), 40.0, seed=1),
    "outliers-many": Outliers(tuple(range(5, 384, 16)), 6.0, seed=2),
}


def nano_config(class_names: tuple[str, ...], **fields) -> keras_vit.ViTConfig:
    """`nano/4` for these images."""
    return keras_vit.ViTConfig.from_variant(
        "nano/4",
        image_size=28,
        channels=1,
        num_classes=10,
        class_names=class_names,
        **fields,
    )


def train_nano(seed: int, folder: pathlib.Path) -> None:
    """`nano/4`, 16 epochs with mirrored images."""
    keras.utils.set_random_seed(seed)
    source = keras_vit.data.find_source(DATASET)
    config = nano_config(source.class_names)
    data = source.load(config, batch_size=128, seed=seed)
    recipe = keras_vit.TrainingRecipe(epochs=16, flip=True)
    keras_vit.train(keras_vit.build_vit(config), data, recipe, output=folder, seed=seed)


def train_hard(outliers: Outliers, folder: pathlib.Path, epochs: int = 2) -> None:
    """Width 384, depth 12, some channels made large at first."""
    keras.utils.set_random_seed(outliers.seed)
    source = keras_vit.data.find_source(DATASET)
    config = keras_vit.ViTConfig.from_variant(
        "S/14",
        image_size=28,
        channels=1,
        num_classes=10,
        class_names=source.class_names,
    )
    model = keras_vit.build_vit(config)
    for kernel in writers(model):
        values = np.array(kernel)
        values[..., list(outliers.channels)] *= outliers.factor
        kernel.assign(values)
    data = source.load(config, batch_size=128)
    recipe = keras_vit.TrainingRecipe(
        epochs=epochs, learning_rate=5e-4, flip=True, translation=0.0
    )
    keras_vit.train(model, data, recipe, output=folder)


def writers(model: keras.Model) -> list:
    """Kernels whose last axis is the residual stream."""
    found = [model.get_layer("patches").projection.kernel]
    for layer in model.layers:
        if hasattr(layer, "output_projection"):
            found.append(layer.output_projection.kernel)
    return found


def train_missing(folder: pathlib.Path) -> None:
    """Trains every model whose folder is not there yet."""
    for seed in SEEDS:
        if not (folder / f"nano-{seed}/run.json").exists():
            train_nano(seed, folder / f"nano-{seed}")
    for name, outliers in HARD.items():
        if not (folder / name / "run.json").exists():
            train_hard(outliers, folder / name)


class Parallel:
    """A `.tflite` as a classifier that gives each core a part of the images."""

    def __init__(self, content: bytes):
        self._parts = [Classifier(content) for _ in range(os.cpu_count() or 1)]
        self._pool = concurrent.futures.ThreadPoolExecutor(len(self._parts))
        self.class_names = self._parts[0].class_names

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images `(b, height, width, c)`."""
        shares = np.array_split(images, len(self._parts))
        rows = self._pool.map(
            lambda one, it: one.probabilities(it), self._parts, shares
        )
        return np.concatenate(list(rows))


def measure(path: pathlib.Path, recipes: list[str]) -> dict[str, dict]:
    """Right or wrong, and agreement with Keras, for every test image and recipe."""
    model = keras.saving.load_model(path, compile=False)
    data = keras_vit.load_data(DATASET, keras_vit.config_of(model), batch_size=250)
    exporter = Exporter(model, data)
    made = {}
    for name in recipes:
        start = time.monotonic()
        made[name] = exporter.convert(name)
        seconds = time.monotonic() - start
        print(f"  {name}: {seconds:.0f} s {made[name].method}", flush=True)
    classifiers = {name: Parallel(it.content) for name, it in made.items()}
    everyone = {"keras": exporter.origin.classifier} | classifiers
    labels, rows = predict(everyone, data.test)
    classes = {
        name: probabilities.argmax(axis=1) for name, probabilities in rows.items()
    }
    print(f"  outliers: {outliers(made['float32'].content, exporter)}", flush=True)
    return {
        name: {
            "right": chosen == labels,
            "agrees": chosen == classes["keras"],
            "tied": ties(rows[name]),
        }
        for name, chosen in classes.items()
    }


def ties(rows: np.ndarray) -> np.ndarray:
    """Whether an image's two largest probabilities are equal."""
    two = np.sort(rows, axis=1)[:, -2:]
    return two[:, 0] == two[:, 1]


def outliers(content: bytes, exporter: Exporter) -> str:
    """How far the largest channels of the rewritten residual stream stand out."""
    names = [it.outputs[0] for it in read_operations(content)]
    stream = [name for name in names if name.endswith("_mlp_add")]
    found = read_all(content, stream, exporter.splits.compared)
    ratios = []
    for values in found.values():
        size = np.abs(values.reshape(-1, values.shape[-1])).mean(axis=0)
        ratios.append(np.sort(size / np.median(size))[::-1])
    firsts = [f"{ratio[0]:.1f}" for ratio in ratios]
    above = [int((ratio >= 7).sum()) for ratio in ratios]
    return (
        f"largest channel over the median, block by block: {', '.join(firsts)}; "
        f"channels of 7 times the median and more: {above}"
    )


def loss(results: list[dict], name: str) -> tuple[float, float]:
    """Points of top-1 lost to float32, and half the 95 % interval over the images.

    The models' answers to one image count as one, their mean.
    """
    reference, right = (
        np.mean([it[file]["right"] for it in results], axis=0)
        for file in ("float32", name)
    )
    return points_lost(reference, right)


def table(results: list[dict]) -> str:
    """Means over the models, with the paired interval of what is lost to float32."""
    lines = [
        "| format | top-1 | points lost to float32 | agreement with Keras | ties |",
        "|---|---|---|---|---|",
    ]
    for name in results[0]:
        top1, agreement, tied = (
            np.mean([it[name][figure].mean() for it in results])
            for figure in ("right", "agrees", "tied")
        )
        lost, half = loss(results, name)
        lines.append(
            f"| {name} | {top1:.2%} | {lost:+.2f} ± {half:.2f} | {agreement:.2%} | "
            f"{tied:.2%} |"
        )
    return "\n".join(lines)


def compare(before: Mapping[str, np.ndarray], right: dict[str, np.ndarray]) -> str:
    """Points lost to the same recipe of another version, model by model."""
    lines = ["| model and format | points lost to the version before |", "|---|---|"]
    for name in sorted(right.keys() & {*before}):
        lost, half = points_lost(before[name], right[name])
        lines.append(f"| {name} | {lost:+.2f} ± {half:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=pathlib.Path, default="runs/accuracy")
    parser.add_argument("--recipes", default=",".join(QUANTIZATION_RECIPES))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path, metavar="FILE.npz")
    parser.add_argument("--beside", type=pathlib.Path, metavar="FILE.npz")
    options = parser.parse_args()
    train_missing(options.models)
    print(", ".join(f"{name} {it}" for name, it in environment().items()))
    recipes = options.recipes.split(",")
    groups = {"nano": [f"nano-{seed}" for seed in SEEDS]} | {it: [it] for it in HARD}
    figures, right = {}, {}
    for group, names in groups.items():
        results = []
        # A sixth of a second an image in 16-bit integers: hours for the larger model.
        measured = [it for it in recipes if group == "nano" or it != "int16x8"]
        for name in names:
            print(f"{name}:", flush=True)
            results.append(measure(options.models / name / "model.keras", measured))
            top1 = {key: float(it["right"].mean()) for key, it in results[-1].items()}
            figures[name] = top1
            right |= {f"{name} {key}": it["right"] for key, it in results[-1].items()}
            print("  " + ", ".join(f"{key} {it:.2%}" for key, it in top1.items()))
        print(f"\n{group}, {len(names)} models\n\n{table(results)}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    if options.save:
        np.savez(options.save, **right)
    if options.beside:
        print(compare(np.load(options.beside), right))


if __name__ == "__main__":
    main()
