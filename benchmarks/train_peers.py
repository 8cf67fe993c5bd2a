"""Training steps of this library, timm in PyTorch, and KerasHub, on the same shapes.

Each has a process of its own, so that their threads don't share a pool; in each round
one after the other makes some steps while the rest sleep. Images are in memory, so the
steps alone are timed: forward, backward, AdamW.

    pip install '.[bench]'
    python benchmarks/train_peers.py --shapes small,Ti --rounds 7 --json train.json
"""

import argparse
import dataclasses
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np
from figures import Figure, machine
from keras_vit_device.files import write_json

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is trained: sizes as in `ViTConfig`, with a class token."""

    image_size: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    batch_size: int
    steps: int  # a round

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Random pixels 0..255, float32 `(b, height, width, 3)`, and labels `(b,)`."""
        random = np.random.default_rng(0)
        size = (self.batch_size, self.image_size, self.image_size, 3)
        images = random.uniform(0, 255, size).astype("float32")
        return images, random.integers(0, CLASSES, self.batch_size)


SHAPES = {
    "small": Shape(28, 4, 96, 6, 6, 128, steps=12),
    "Ti": Shape(224, 16, 192, 12, 3, 16, steps=3),
}


def keras_vit_model(shape: Shape):
    """This library's model."""
    import keras_vit

    config = keras_vit.ViTConfig(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        width=shape.width,
        depth=shape.depth,
        num_heads=shape.num_heads,
        mlp_dim=4 * shape.width,
        num_classes=CLASSES,
    )
    return keras_vit.build_vit(config)


def keras_vit_steps(shape: Shape) -> Callable[[], None]:
    """This library, compiled as `keras_vit.train` compiles it."""
    import keras_vit
    from keras_vit.training.loop import first_tokens_alone
    from keras_vit.training.optimizer import make_optimizer

    model = keras_vit_model(shape)
    recipe = keras_vit.TrainingRecipe(ema_momentum=0.0)
    steps = keras_steps(model, make_optimizer(recipe, 10_000), True, shape)

    def as_trained() -> None:
        with first_tokens_alone(model):
            steps()

    return as_trained


def fit_steps(shape: Shape, jit_compile: bool | str) -> Callable[[], None]:
    """A `fit` of one's own, with Keras' own AdamW."""
    import keras

    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
    return keras_steps(keras_vit_model(shape), optimizer, jit_compile, shape)


def kerashub_steps(shape: Shape, jit_compile: bool | str) -> Callable[[], None]:
    """KerasHub's ViT with Keras' own AdamW."""
    import keras
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(shape.image_size, shape.image_size, 3),
        patch_size=shape.patch_size,
        num_layers=shape.depth,
        num_heads=shape.num_heads,
        hidden_dim=shape.width,
        mlp_dim=4 * shape.width,
    )
    model = keras_hub.models.ViTImageClassifier(backbone, CLASSES)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
    return keras_steps(model, optimizer, jit_compile, shape)


def keras_steps(model, optimizer, jit_compile, shape: Shape) -> Callable[[], None]:
    """`model.fit` on one batch, over and over."""
    import keras
    import tensorflow as tf

    images, labels = shape.batch()
    targets = np.eye(CLASSES, dtype="float32")[labels]
    # The steps alone: the tuner keeps a pass of 3.1 seconds from ending until 5.1.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = tf.data.Dataset.from_tensors((images, targets)).repeat(shape.steps)
    batches = batches.with_options(options)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=[], jit_compile=jit_compile)
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def timm_steps(shape: Shape, compiled: bool) -> Callable[[], None]:
    """timm's ViT in PyTorch, eager or compiled."""
    import timm
    import torch

    torch.set_num_threads(os.cpu_count())
    model = timm.models.VisionTransformer(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.num_heads,
        num_classes=CLASSES,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    run = torch.compile(model) if compiled else model
    images, labels = (torch.from_numpy(part) for part in shape.batch())
    # What the first layer of the Keras models, or their preprocessor, does.
    images = (images.permute(0, 3, 1, 2) / 127.5 - 1).contiguous()

    def steps() -> None:
        for _ in range(shape.steps):
            loss = torch.nn.functional.cross_entropy(run(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return steps


CANDIDATES: dict[str, Callable[[Shape], Callable[[], None]]] = {
    "keras_vit": keras_vit_steps,
    "keras_vit, fit of one's own": lambda shape: fit_steps(shape, "auto"),
    "keras_vit, fit of one's own, XLA": lambda shape: fit_steps(shape, True),
    "timm, PyTorch eager": lambda shape: timm_steps(shape, False),
    "timm, torch.compile": lambda shape: timm_steps(shape, True),
    "KerasHub, as it comes": lambda shape: kerashub_steps(shape, "auto"),
    "KerasHub, XLA": lambda shape: kerashub_steps(shape, True),
}


def serve(name: str, shape: Shape, connection) -> None:
    """A candidate's process: makes a round of steps whenever it is told to."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")
    try:
        steps = CANDIDATES[name](shape)
        steps()  # compiles
        steps()
        connection.send(None)
    except (ImportError, RuntimeError, ValueError, TypeError) as error:
        connection.send(f"{type(error).__name__}: {error}"[:300])
        return
    while connection.recv():
        begin = time.perf_counter()
        steps()
        connection.send(time.perf_counter() - begin)


def timed(shape: Shape, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Images a second of each candidate in each round."""
    context = multiprocessing.get_context("spawn")
    running = {}
    for name in names:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, shape, theirs), daemon=True)
        process.start()
        failed = ours.recv()
        if failed:
            print(f"Left out: {name}. {failed}", flush=True)
        else:
            running[name] = process, ours
    speeds = {name: [] for name in running}
    for _ in range(rounds):
        for name, (_, connection) in running.items():
            connection.send(True)
            seconds = connection.recv()
            speeds[name].append(shape.batch_size * shape.steps / seconds)
    for process, connection in running.values():
        connection.send(False)
        process.join()
    return speeds


def table(speeds: dict[str, list[float]]) -> str:
    """Medians, and how many times as fast this library was, round by round."""
    lines = ["| candidate | images a second | keras_vit is times as fast |"]
    lines.append("|---|---|---|")
    for name, figures in speeds.items():
        pairs = zip(speeds["keras_vit"], figures, strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        lines.append(f"| {name} | {Figure.of(figures)} | {Figure.of(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    """Times every shape and prints a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", default="small,Ti")
    parser.add_argument("--candidates", default="", help="such as keras_vit;KerasHub")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    wanted = [part for part in options.candidates.split(";") if part] or [""]
    names = [name for name in CANDIDATES if any(part in name for part in wanted)]
    figures = machine()
    print("\n\n".join(figures.values()), flush=True)
    for key in options.shapes.split(","):
        shape = SHAPES[key]
        speeds = figures[key] = timed(shape, names, options.rounds)
        print(f"\n## {key}: {shape}\n\n{table(speeds)}", flush=True)
        if options.json:
            write_json(options.json, figures)


if __name__ == "__main__":
    main()
