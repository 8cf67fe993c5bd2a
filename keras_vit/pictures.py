"""Pictures of a run: curves, predictions, confusion. Each writes one PNG."""

import pathlib
from collections.abc import Sequence

import numpy as np
from keras_vit_device.files import whole_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_vit.evaluation import Evaluation

_RIGHT, _WRONG = "#1a7f37", "#cf222e"


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


def save_figure(figure: Figure, path: str | pathlib.Path) -> None:
    """Writes a PNG, whole or not at all."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
