"""A published checkpoint becomes a model: every tensor accounted for, or an error."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit.config import ViTConfig, check_choice
from keras_vit.model import build_vit
from keras_vit.resampling import POSITION_MODES, resize_patches, resize_positions
from keras_vit.weights.formats.layouts import Table
from keras_vit.weights.source import Source, describe
from keras_vit.weights.tensors import name_first
from keras_vit.weights.untrained import signs_of_no_training


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model from a file, and what was done to make it.

    Attributes:
        model: With all the file's weights.
        format: Name of the format.
        preprocessing: Where the scaling of pixels is known from.
        remarks: What was resized, left out or new, a line each.
    """

    model: keras.Model
    format: str
    preprocessing: str
    remarks: tuple[str, ...]


def load_checkpoint(path: str | pathlib.Path, **options: Any) -> keras.Model:
    """The model of `read_checkpoint`, which says what the options are."""
    return read_checkpoint(path, **options).model


def read_checkpoint(
    path: str | pathlib.Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    preprocessing: str | None = None,
    position_mode: str | None = None,
    num_heads: int | None = None,
    source_image_size: int | tuple[int, int] | None = None,
    prefix: str | None = None,
) -> Checkpoint:
    """Reads published weights into a model of `build_vit`.

    Args:
        path: An `.npz` or safetensors file, known by content; the index of several; or
            a folder with one, as Hugging Face and timm lay it out. `config.json` and
            `preprocessor_config.json` beside it are read.
        image_size: Height and width of the model's images in pixels, or the side of a
            square; the checkpoint's own if `None`. Positions are resized to it.
        patch_size: Side of a patch in pixels; the checkpoint's own if `None`.
        num_classes: A new head, all zeros, for so many classes; needed where the file
            has none. The checkpoint's own head if `None`.
        class_names: Name of each class; what the notes say if `()`.
        preprocessing: `"inception"` (mean and std 0.5, stretched), `"imagenet"` (its
            mean and std, the middle 90 %), `"big_vision"` (mean and std 0.5, the
            middle 87.5 %), `"torchvision"` (ImageNet's, bilinear, the middle 87.5 %)
            or `"torchvision_swag"` (ImageNet's, all); needed where nothing else says.
        position_mode: How positions are resized: `"bicubic_antialias"`, `"bicubic"`,
            `"bicubic_corners"`, `"dinov2"` or `"linear"`; as the format's own code does
            if `None`.
        num_heads: Number of heads, where neither notes nor the table of sizes tell.
        source_image_size: Of the checkpoint, if its positions are not of a square.
        prefix: What the names of the wanted model begin with, where the file holds
            several, such as `"teacher"`.

    Raises:
        ValueError: If the file is missing, damaged, a pickle or of another format; if a
            tensor is missing, unexpected, of another shape, or holds NaN or infinity;
            if notes contradict tensors; or if an option is needed or wrong.
    """
    if position_mode is not None:
        check_choice("position_mode", position_mode, POSITION_MODES)
    source = describe(
        path,
        preprocessing=preprocessing,
        num_heads=num_heads,
        source_image_size=source_image_size,
        prefix=prefix,
    )
    own = source.config(num_classes, class_names)
    config = dataclasses.replace(
        own,
        image_size=own.image_size if image_size is None else image_size,
        patch_size=own.patch_size if patch_size is None else patch_size,
    )
    tensors, table, remarks = _account(source, own, num_classes is not None)
    mode = position_mode or source.position_mode
    if config.grid != own.grid and own.positions == "learned":
        remarks.append(f"positions resized from {own.grid} to {config.grid} ({mode})")
    if config.patch_size != own.patch_size:
        remarks.append(f"patches resized from {own.patch_size} to {config.patch_size}")
    model = build_vit(config)
    weights = _weights(source.path, tensors, table, _shapes(model, own))
    remarks += signs_of_no_training(weights, own)
    variables = {variable.path: variable for variable in model.weights}
    for name, value in _resize(weights, own, config, mode).items():
        variables[name].assign(value)
    return Checkpoint(
        model, source.form.name, source.preprocessing, (*source.remarks, *remarks)
    )


def _account(
    source: Source, own: ViTConfig, new_head: bool
) -> tuple[dict[str, np.ndarray], Table, list[str]]:
    """Tensors and what they hold, name for name; and a remark on what is new."""
    form, tensors, remarks = source.form, source.tensors, []
    if new_head:
        tensors = {
            name: it
            for name, it in tensors.items()
            if not re.fullmatch(form.head, name)
        }
        if source.unread:
            remarks.append(f"left out, for a new head: {source.unread}")
    table = form.table(own, not new_head)
    optional = [name for name in table if re.fullmatch(form.optional, name)]
    if optional and not any(name in tensors for name in optional):
        tensors = tensors | {
            name: np.zeros(len(table[name].weights) * own.width, "float32")
            for name in optional
        }
        remarks.append("queries, keys and values have no bias: zeros")
    missing = sorted(table.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - table.keys())
    if missing or unexpected:
        raise ValueError(
            f"'{source.path}' is no whole {form.name} file. Missing: {name_first(missing)}. "
            f"Unexpected: {name_first(unexpected)}."
        )
    return tensors, table, remarks


def _shapes(model: keras.Model, own: ViTConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each weight in the file's own model, whose positions may be others."""
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    kernel = shapes["patches/projection/kernel"]
    shapes["patches/projection/kernel"] = (own.patch_size, own.patch_size, *kernel[2:])
    if own.positions == "learned":
        rows = own.num_prefix_positions + own.num_patches
        shapes["positions/positions"] = (1, rows, own.width)
    return shapes


def _weights(
    path: pathlib.Path,
    tensors: dict[str, np.ndarray],
    table: Table,
    shapes: dict[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Weights by their path in the model, all of them, in the shapes of the file's."""
    filled = {weight for entry in table.values() for weight in entry.weights}
    head = {weight for weight in shapes if weight.startswith("head")}
    empty = sorted(shapes.keys() - filled - (head if not head & filled else set()))
    if empty:
        raise ValueError(
            f"'{path}' says nothing of these weights of the model that its notes "
            f"describe: {name_first(empty)}."
        )
    wrong = []
    for name, entry in table.items():
        # Zeros of these shapes, of no size but where a layout puts them together.
        blanks = [np.broadcast_to(np.float32(0), shapes[it]) for it in entry.weights]
        expected = entry.layout.write(*blanks).shape
        if tensors[name].shape != expected:
            wrong.append(f"{name} is {tensors[name].shape}, must be {expected}")
    if wrong:
        raise ValueError(f"'{path}' has tensors of other shapes: {name_first(wrong)}.")
    weights = {}
    for name, entry in table.items():
        tensor = tensors[name].astype("float32", copy=False)
        if not np.isfinite(tensor).all():
            raise ValueError(f"Tensor {name!r} of '{path}' holds NaN or infinity.")
        weights |= zip(entry.weights, entry.layout.read(tensor), strict=True)
    return weights


def _resize(
    weights: dict[str, np.ndarray], own: ViTConfig, config: ViTConfig, mode: str
) -> dict[str, np.ndarray]:
    """The same for images and patches of the sizes that are wanted."""
    kernel = resize_patches(weights["patches/projection/kernel"], config.patch_size)
    resized = weights | {"patches/projection/kernel": kernel}
    if own.positions == "learned":
        table, covered = weights["positions/positions"], own.num_prefix_positions
        patches = resize_positions(table[:, covered:], own.grid, config.grid, mode)
        table = np.concatenate([table[:, :covered], patches], axis=1)
        resized["positions/positions"] = table
    return resized
