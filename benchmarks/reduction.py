"""Fewer tokens beside lower resolution: top-1 and milliseconds on Fashion-MNIST.

    python benchmarks/reduction.py --train   hours on two cores
    python benchmarks/reduction.py           on a quiet machine

A `nano/4` of 49 tokens is trained, with a class token and without, two seeds each. Its
patches become half as wide, so it has 196 tokens, and it is trained on. From there each
variant, fewer tokens or lower resolution, is trained as long, by one recipe. A real
pretrained ViT-S/14 (`make real-vit`) with a linear probe is trained on at 140 and at
224 px, and then varied likewise, with 3,000 images. All are exported as `static_int8`
and held against the file of the model with all tokens, trained as long: points of top-1
lost on all 10,000 test images with their paired 95 % interval, and how many times as
fast, by the median of rounds in turn. The fronts are drawn.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow_datasets as tfds
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
from real_vit import make_probe

import keras_vit
from keras_vit.files import load_model
from keras_vit.training.recipes import TRAINING_RECIPES
from keras_vit.training.runs.settings import is_finished

DATASET, RECIPE = "fashion_mnist", "static_int8"
# Of the pretrained model: training images, and test images that each training ends with.
TRAINED, TESTED = 3000, 1000
REAL_VIT = pathlib.Path("runs/real_vit")
GENTLE = 3e-5  # learning rate of pretrained weights


class Study(NamedTuple):
    """A model, and what it becomes.

    Attributes:
        make: From a folder, the path of the model with all tokens, trained.
        load: From a model and a seed, the images that it is trained on.
        variants: What the model becomes, itself first.
        changes: Of the recipe `fewer_tokens`, by which each is trained.
        precision: Keras' dtype policy while they are.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    load: Callable[..., keras_vit.ImageData]
    variants: tuple[Variant, ...]
    changes: dict[str, float]
    precision: str = "float32"
    seed: int = 0


def prune(keep: float, *blocks: int) -> Variant:
    return Variant(reduce_tokens=tuple((block, "prune", keep) for block in blocks))


def pool(block: int) -> Variant:
    return Variant(reduce_tokens=((block, "pool", 2),))


def side(pixels: int) -> Variant:
    return Variant(image_size=(pixels, pixels))


def load_all(model: keras.Model, seed: int = 0) -> keras_vit.ImageData:
    """All images in a model's size."""
    source = keras_vit.data.find_source(DATASET)
    return source.load(keras_vit.config_of(model), batch_size=128, seed=seed)


def load_few(model: keras.Model, seed: int = 0) -> keras_vit.ImageData:
    """The first images of the data set, in a model's size."""
    splits = {
        "train": f"train[:{TRAINED}]",
        "validation": "train[-500:]",
        "test": f"test[:{TESTED}]",
    }
    found = tfds.load(DATASET, split=splits, as_supervised=True)
    config = keras_vit.config_of(model)
    source = keras_vit.data.from_datasets(DATASET, config.class_names, **found)
    return source.load(config, batch_size=50, seed=seed)


def train_stage(
    model, data, recipe, folder: pathlib.Path, seed: int, **options
) -> None:
    """Trains, or goes on where it was broken off; nothing if it is finished."""
    if is_finished(folder):
        return
    resume = (folder / "run.json").exists()
    fixed = {"output": folder, "seed": seed, "resume": resume, "verbose": 0}
    run = keras_vit.train(model, data, recipe, **fixed, **options)
    print(f"{folder}: {run.evaluation.top1:.2%}, {run.pace['seconds']} s", flush=True)


def make_nano(folder: pathlib.Path, seed: int, **kind) -> pathlib.Path:
    """A model of 49 tokens, the same with 196, trained on."""
    keras.utils.set_random_seed(seed)
    source = keras_vit.data.find_source(DATASET)
    model = keras_vit.build_vit(nano_config(source.class_names, **kind))
    # The class token needs more epochs to reach 91 %.
    recipe = keras_vit.TrainingRecipe(epochs=32 if kind else 24, flip=True)
    train_stage(model, load_all(model, seed), recipe, folder / "base", seed)
    grown = keras_vit.with_patch_size(load_model(folder / "base/model.keras"), 2)
    recipe = dataclasses.replace(recipe, epochs=2, learning_rate=1e-3)
    train_stage(grown, load_all(grown, seed), recipe, folder / "grown", seed)
    return folder / "grown/model.keras"


def make_real(folder: pathlib.Path, size: int) -> pathlib.Path:
    """A pretrained model with a probe, trained on."""
    probe = REAL_VIT / f"probe_{size}.keras"
    if not probe.exists():
        make_probe(REAL_VIT, size, probe)
    model = as_precise(load_model(probe), "mixed_bfloat16")
    recipe = keras_vit.TrainingRecipe(
        epochs=1, learning_rate=GENTLE, ema_momentum=0.0, translation=0.0, flip=True
    )
    train_stage(model, load_few(model), recipe, folder / "all", 0)
    return folder / "all/model.keras"


def as_precise(model: keras.Model, policy: str) -> keras.Model:
    """The same weights, in a model that computes with this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    same = keras_vit.build_vit(keras_vit.config_of(model))
    keras.config.set_dtype_policy(before)
    same.set_weights(model.get_weights())
    return same


def train_all(folder: pathlib.Path, study: Study) -> None:
    """The model with all its tokens, and its variants."""
    path = study.make(folder)
    teacher = as_precise(load_model(path), study.precision)
    recipe = TRAINING_RECIPES["fewer_tokens"]
    recipe = dataclasses.replace(recipe, flip=True, **study.changes)
    for variant in study.variants:
        model = as_precise(variant.apply(load_model(path)), study.precision)
        train_stage(
            model,
            study.load(model, study.seed),
            recipe,
            folder / variant.name,
            study.seed,
            teacher=teacher if variant.image_size is None else None,
        )


NANO = (
    Variant(),  # trained on as long with all tokens
    pool(1),
    side(20),
    prune(0.7, 0, 1, 2),
    prune(0.5, 0, 1, 2),
    side(22),
    pool(2),
    Variant(patch_size=4),
)
VIT_140 = (
    Variant(),
    prune(0.7, 3, 6, 9),
    side(112),
    pool(5),
    prune(0.5, 3, 6, 9),
    pool(3),
    side(98),
)
VIT_224 = (
    Variant(),
    prune(0.7, 3, 6, 9),
    side(182),
    pool(5),
    prune(0.5, 3, 6, 9),
    pool(3),
    side(154),
)
TOKEN = {"class_token": True, "pool": "token"}
STUDIES = {
    f"{name}-{seed}": Study(
        functools.partial(make_nano, seed=seed, **kind),
        load_all,
        NANO,
        {"epochs": 1, "learning_rate": 5e-4},
        seed=seed,
    )
    for seed in (0, 1)
    for name, kind in {"token": TOKEN, "mean": {}}.items()
}
STUDIES |= {
    f"vit-s-{size}": Study(
        functools.partial(make_real, size=size),
        load_few,
        variants,
        {"epochs": 1, "learning_rate": GENTLE},
        "mixed_bfloat16",
    )
    for size, variants in {140: VIT_140, 224: VIT_224}.items()
}


def measure(folder: pathlib.Path, study: Study) -> list[dict]:
    """Points lost and milliseconds of each variant that is trained."""
    found = {it: folder / it.name for it in study.variants}
    found = {it: path for it, path in found.items() if is_finished(path)}
    files, right = {}, {}
    for variant, path in found.items():
        model = load_model(path / "model.keras")
        data = load_all(model)
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
    panels = figure.subplots(1, len(found), squeeze=False)[0]
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
    parser.add_argument("--only", nargs="*", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    if options.train:
        for name in options.only:
            train_all(options.models / name, STUDIES[name])
        return
    print(", ".join(f"{name} {it}" for name, it in environment().items()))
    found = {}
    for name in options.only:
        print(f"\n{name}", flush=True)
        found[name] = measure(options.models / name, STUDIES[name])
        print(f"\n{table(found[name])}", flush=True)
    draw(found, options.models / "front.png")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
