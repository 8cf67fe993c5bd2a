"""Fewer tokens beside lower resolution: top-1 and milliseconds on Fashion-MNIST.

    python benchmarks/reduction.py --models runs/reduction --train   hours on two cores
    python benchmarks/reduction.py --models runs/reduction           on a quiet machine

A `nano/4` of 49 tokens is trained, with a class token and without, two seeds each. Its
patches become half as wide, so it has 196 tokens, and it is trained on. From there each
variant, fewer tokens or lower resolution, is trained as long, by one recipe. All are
exported as `static_int8` and held against the file of the model with all tokens: points
of top-1 lost on all 10,000 test images with their paired 95 % interval, and how many
times as fast, by the median of rounds in turn. The fronts are drawn.
"""

import argparse
import dataclasses
import functools
import json
import pathlib

import keras
import numpy as np
from accuracy import Parallel, nano_config
from keras_vit_device.classifier import Classifier
from keras_vit_export.exporter import Exporter
from keras_vit_export.report.measure import (
    environment,
    median_latency_ms,
    points_lost,
    predict,
)
from keras_vit_export.speedup.variants import Variant
from matplotlib.figure import Figure

import keras_vit
from keras_vit.files import load_model
from keras_vit.training.recipes import TRAINING_RECIPES
from keras_vit.training.runs.settings import is_finished

DATASET, RECIPE, BATCH = "fashion_mnist", "static_int8", 128
KINDS = {
    "token": {"class_token": True, "pool": "token"},
    "mean": {},  # as `nano` is
}
SEEDS = (0, 1)
# Epochs of the model of 49 tokens, which the class token needs more of to reach 91 %;
# after its patches are halved; of each variant.
EPOCHS, GROWN, VARIED = {"token": 32, "mean": 24}, 2, 2


def prune(keep: float, *blocks: int) -> Variant:
    return Variant(reduce_tokens=tuple((block, "prune", keep) for block in blocks))


VARIANTS = (
    Variant(),  # trained on as long with all tokens
    Variant(reduce_tokens=((1, "pool", 2),)),
    Variant(image_size=(20, 20)),
    prune(0.7, 0, 1, 2),
    prune(0.5, 0, 1, 2),
    Variant(image_size=(22, 22)),
    Variant(reduce_tokens=((2, "pool", 2),)),
    Variant(patch_size=4),
)


def load(model: keras.Model, seed: int = 0) -> keras_vit.ImageData:
    """The images in a model's size."""
    source = keras_vit.data.find_source(DATASET)
    return source.load(keras_vit.config_of(model), batch_size=BATCH, seed=seed)


def train_stage(model, recipe, folder: pathlib.Path, seed: int, teacher=None) -> None:
    """Trains, or goes on where it was broken off; nothing if it is finished."""
    if is_finished(folder):
        return
    run = keras_vit.train(
        model,
        load(model, seed),
        recipe,
        output=folder,
        seed=seed,
        teacher=teacher,
        resume=(folder / "run.json").exists(),
        verbose=0,
    )
    print(f"{folder}: {run.evaluation.top1:.2%}, {run.pace['seconds']} s", flush=True)


def train_all(folder: pathlib.Path, kind: str, seed: int) -> None:
    """The model, the same with more patches, and its variants."""
    keras.utils.set_random_seed(seed)
    source = keras_vit.data.find_source(DATASET)
    config = nano_config(source.class_names, **KINDS[kind])
    recipe = keras_vit.TrainingRecipe(epochs=EPOCHS[kind], flip=True)
    train_stage(keras_vit.build_vit(config), recipe, folder / "base", seed)
    grown = keras_vit.with_patch_size(load_model(folder / "base/model.keras"), 2)
    recipe = dataclasses.replace(recipe, epochs=GROWN, learning_rate=1e-3)
    train_stage(grown, recipe, folder / "grown", seed)
    teacher = load_model(folder / "grown/model.keras")
    recipe = dataclasses.replace(
        TRAINING_RECIPES["fewer_tokens"], epochs=VARIED, flip=True
    )
    for variant in VARIANTS:
        same = variant.image_size is None
        model = variant.apply(load_model(folder / "grown/model.keras"))
        path = folder / variant.name
        train_stage(model, recipe, path, seed, teacher if same else None)


def measure(folder: pathlib.Path) -> list[dict]:
    """Points lost and milliseconds of each variant that is trained."""
    found = {it: folder / it.name for it in VARIANTS}
    found = {it: path for it, path in found.items() if is_finished(path)}
    files, right = {}, {}
    for variant, path in found.items():
        model = load_model(path / "model.keras")
        data = load(model)
        files[variant] = Exporter(model, data).convert(RECIPE).content
        labels, rows = predict({"it": Parallel(files[variant])}, data.test)
        right[variant] = rows["it"].argmax(axis=1) == labels
        print(f"  {variant}: {right[variant].mean():.2%}", flush=True)
    runs = {}
    for variant, content in files.items():
        classifier = Classifier.of_flatbuffer(content)
        image = classifier.test_image[None]
        runs[variant] = functools.partial(classifier.probabilities, image)
    times = median_latency_ms(runs, rounds=300)
    rows = []
    for variant in found:
        lost, interval = points_lost(right[Variant()], right[variant])
        rows.append(
            {
                "variant": str(variant),
                "kind": variant.kind,
                "top1": float(np.mean(right[variant])),
                "lost": lost,
                "interval": interval,
                "ms": times[variant],
                "ratio": times[Variant()] / times[variant],
            }
        )
    return sorted(rows, key=lambda row: row["ms"])


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    lines = ["| | top-1 | points lost | ms | times as fast |", "|---|---|---|---|---|"]
    lines += [
        f"| {it['variant']} | {it['top1']:.2%} | {it['lost']:+.2f} ± "
        f"{it['interval']:.2f} | {it['ms']:.3f} | {it['ratio']:.2f} |"
        for it in rows
    ]
    return "\n".join(lines)


def draw(found: dict[str, list[dict]], path: pathlib.Path) -> None:
    """Top-1 against milliseconds, a panel for each model."""
    figure = Figure(figsize=(4 * len(found), 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    colors = {"": "black", "size": "tab:blue", "patch": "tab:cyan"}
    colors |= {"pool": "tab:green", "prune": "tab:orange"}
    words = {"": "all tokens", "size": "smaller images", "patch": "larger patches"}
    words |= {"pool": "pooled", "prune": "pruned"}
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        for kind, color in colors.items():
            them = [it for it in rows if it["kind"] == kind]
            points = [it["ms"] for it in them], [100 * it["top1"] for it in them]
            panel.plot(*points, marker="o", color=color, label=words[kind])
        panel.set(title=name, xlabel="ms an image, one thread", xscale="log")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("top-1, %")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=pathlib.Path, default="runs/reduction")
    parser.add_argument("--train", action="store_true", help="what is missing")
    parser.add_argument("--only", metavar="KIND-SEED", help="one model, as token-0")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    models = {f"{kind}-{seed}": (kind, seed) for seed in SEEDS for kind in KINDS}
    if options.only:
        models = {options.only: models[options.only]}
    if options.train:
        for name, which in models.items():
            train_all(options.models / name, *which)
        return
    print(", ".join(f"{name} {it}" for name, it in environment().items()))
    found = {}
    for name in models:
        print(f"\n{name}", flush=True)
        found[name] = measure(options.models / name)
        print(f"\n{table(found[name])}", flush=True)
    draw(found, options.models / "front.png")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
