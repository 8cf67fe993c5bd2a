"""Pictures of a model, and of a run: curves, predictions, confusion. Each is one PNG."""

import dataclasses
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from keras_vit_device.files import whole_file
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_vit.config import ViTConfig
from keras_vit.evaluation import Evaluation
from keras_vit.model import build_vit

_RIGHT, _WRONG = "#1a7f37", "#cf222e"
# Of boxes in a diagram: where tokens meet, where each is by itself, and the rest.
_MEETING, _ALONE, _OTHER, _LINE = "#ddf4ff", "#dafbe1", "#f6f8fa", "#57606a"


def draw_curves(history: dict[str, list[float]], path: str | pathlib.Path) -> None:
    """Loss and accuracy of each epoch, training and validation.

    Args:
        history: Columns of `history.csv` by name.
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, history[metric], label="training", color="#8c959f")
        axes.plot(epochs, history[f"val_{metric}"], label="validation", color="#0969da")
        axes.set(xlabel="epoch", ylabel=metric)
        axes.grid(alpha=0.3)
        axes.legend()
    if len(epochs) > 1:
        best = max(history["val_accuracy"])
        axes.set_title(f"best validation accuracy {best:.1%}", fontsize=10)
    save_figure(figure, path)


def draw_model(config: ViTConfig, path: str | pathlib.Path) -> None:
    """What `build_vit(config)` is made of, by the layers' names, from the image upwards.

    Left the whole model, with the shape that leaves each layer; right a block in full.

    Args:
        config: Of the model.
        path: Where the PNG goes.

    Source: https://arxiv.org/abs/2010.11929, figure 1.
    """
    # Two blocks have all names that there are.
    small = dataclasses.replace(config, depth=min(config.depth, 2))
    model = build_vit(small, name="diagram")  # else the next would be "vit_1"
    last = f" ... block_{config.depth - 1:02d}" if config.depth > 1 else ""
    blocks = f"block_00{last}"
    trunk, inside = _parts(model, blocks)
    height = max(len(trunk), len(inside) + 1)
    figure = Figure(figsize=(9, 0.6 * height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(-0.75, height - 0.4))
    axes.axis("off")
    for y, row in enumerate(trunk):
        known = model.get_layer("block_00_mlp_add" if row == [blocks] else row[-1])
        color = _MEETING if row == [blocks] else _OTHER
        shape = ", ".join(["b", *map(str, known.output.shape[1:])])
        for place, name in enumerate(row):
            x = 2.4 + 2.3 * (place - (len(row) - 1) / 2)
            _draw_box(axes, (x, y), f"{name}\n({shape})", color, width=4.5 / len(row))
            if y:
                _draw_arrow(axes, (x, y - 0.68), (x, y - 0.32))
    _draw_block(axes, inside, trunk.index([blocks]))
    save_figure(figure, path)


def _parts(model: keras.Model, blocks: str) -> tuple[list[list[str]], list[str]]:
    """Layers outside of blocks, some two side by side, and those of the first block."""
    trunk, inside = [], []
    for layer in model.layers:
        twin = layer.name.removesuffix("_distillation")
        if layer.name.startswith("block_00"):
            inside.append(layer.name)
            if [blocks] not in trunk:
                trunk.append([blocks])
        elif twin != layer.name:
            next(row for row in trunk if row == [twin]).append(layer.name)
        elif not layer.name.startswith(("block_", "pool_reads")):
            trunk.append([layer.name])
    return trunk, inside


def _draw_block(axes: Axes, names: list[str], beside: int) -> None:
    """A block's layers, and past each branch what it is added to."""
    top, since = len(names) - 0.45, -0.5
    for y in (-0.7, top):
        axes.plot([4.65, 5.2], [beside, y], color=_LINE, linewidth=0.8, linestyle=":")
    size = (4.7, top + 0.7)
    axes.add_patch(Rectangle((5.2, -0.7), *size, fill=False, edgecolor=_LINE))
    for y, name in enumerate(names):
        _draw_arrow(axes, (7.8, y - 0.7), (7.8, y - 0.32))
        if name.endswith("_add"):
            axes.plot([7.8, 5.6, 5.6], [since, since, y], color=_LINE, linewidth=1)
            _draw_arrow(axes, (5.6, y), (6, y))
            since = y + 0.5
        meets = name.endswith("attention")
        color = _MEETING if meets else _ALONE if name.endswith("mlp") else _OTHER
        sign = "+  " if name.endswith("_add") else ""
        _draw_box(axes, (7.8, y), sign + name, color, width=3.6)


def _draw_box(axes: Axes, centre, text: str, color: str, width: float) -> None:
    x, y = centre
    corner = (x - width / 2, y - 0.3)
    axes.add_patch(Rectangle(corner, width, 0.6, facecolor=color, edgecolor=_LINE))
    style = {"family": "monospace", "fontsize": 8, "ha": "center", "va": "center"}
    axes.text(x, y, text, parse_math=False, **style)


def _draw_arrow(axes: Axes, start, end) -> None:
    style = {"arrowstyle": "->", "color": _LINE, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)


def draw_predictions(
    images: np.ndarray, evaluation: Evaluation, title: str, path: str | pathlib.Path
) -> None:
    """Images with what was predicted; wrong ones framed red with the true class.

    Args:
        images: Uint8 `(count, height, width, c)`, one for each row of `evaluation`.
        evaluation: Predictions of these images.
        title: Line above them.
        path: Where the PNG goes.
    """
    captions, colors = [], []
    shown = zip(evaluation.labels, evaluation.predictions, strict=True)
    for row, (label, prediction) in enumerate(shown):
        probability = evaluation.probabilities[row, prediction]
        text = f"{evaluation.class_names[prediction]} {probability:.0%}"
        if label != prediction:
            text += f"\nis {evaluation.class_names[label]}"
        captions.append(text)
        colors.append(_RIGHT if label == prediction else _WRONG)
    draw_images(images, captions, title, path, colors)


def draw_images(
    images: np.ndarray,
    captions: Sequence[str],
    title: str,
    path: str | pathlib.Path,
    colors: Sequence[str] | None = None,
) -> None:
    """A page of images.

    Args:
        images: `(count, height, width, c)` in 0..255.
        captions: Text above each.
        title: Line above them all.
        path: Where the PNG goes.
        colors: Of each caption and frame; black if `None`. What is wrong has a thick
            frame.
    """
    columns = 8
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 1.35, rows * 1.6 + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    colors = colors or ["black"] * len(images)
    for axes, image, text, color in zip(grid, images, captions, colors, strict=False):
        show_image(axes, image)
        axes.set(xticks=[], yticks=[])
        axes.set_title(text, fontsize=8, color=color, parse_math=False)
        for spine in axes.spines.values():
            spine.set(color=color, linewidth=3 if color == _WRONG else 1)
    save_figure(figure, path)


def draw_confusion(evaluation: Evaluation, path: str | pathlib.Path) -> None:
    """Part of each true class (row) that was predicted as each class (column)."""
    confusion = evaluation.confusion
    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    count = len(confusion)
    side = min(3.5 + 0.45 * count, 20)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        title=f"top-1 {evaluation.top1:.1%} of {len(evaluation.labels)} images",
    )
    if count <= 40:
        names = evaluation.class_names
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= 20:
        for row, column in np.argwhere(confusion):
            color = "white" if parts[row, column] > 0.5 else "black"
            text = confusion[row, column]
            axes.text(column, row, text, ha="center", va="center", color=color)
    save_figure(figure, path)


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image `(height, width, c)` in 0..255.

    Three channels are a colour; any other number is shown as its mean.
    """
    image = image if image.shape[-1] == 3 else image.mean(axis=-1)
    axes.imshow(image.astype("uint8"), cmap="gray", vmin=0, vmax=255)


def show_map(axes: Axes, image: np.ndarray, part: np.ndarray, title: str) -> None:
    """A map over a pale image, each patch in its place.

    Args:
        axes: Where it is drawn.
        image: `(height, width, c)` in 0..255.
        part: A number for each patch, `(rows, columns)`; yellow is the largest.
        title: Line above.
    """
    height, width = image.shape[:2]
    grey = image.mean(axis=-1)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(part, cmap="viridis", alpha=0.65, extent=extent)
    axes.set_title(title, fontsize=8, pad=2)


def show_kept(axes: Axes, image: np.ndarray, kept: np.ndarray, title: str) -> None:
    """An image whose other patches are covered, by a colour that few images have.

    Args:
        axes: Where it is drawn.
        image: `(height, width, c)` in 0..255.
        kept: Whether a patch stays as it is, `(rows, columns)`.
        title: Line above.
    """
    show_image(axes, image)
    height, width = image.shape[:2]
    cover = np.zeros((*kept.shape, 4))
    cover[~kept] = (*to_rgb("tab:pink"), 0.75)
    axes.imshow(cover, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axes.set_title(title, fontsize=8, pad=2)


def save_figure(figure: Figure, path: str | pathlib.Path) -> None:
    """Writes a PNG, whole or not at all."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
