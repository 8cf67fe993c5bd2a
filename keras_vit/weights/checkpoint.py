"""A published checkpoint becomes a model: every tensor accounted for, or an error."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_vit.config import VARIANTS, ViTConfig, check_choice
from keras_vit.model import build_vit
from keras_vit.weights import contract, google, hugging_face, timm
from keras_vit.weights.layouts import Table
from keras_vit.weights.resampling import (
    POSITION_MODES,
    resize_patches,
    resize_positions,
)
from keras_vit.weights.tensors import read

FORMATS = (google, timm, hugging_face)
# How positions are resized where the caller doesn't say, as each format's own code does.
_MODES = {google: "linear", timm: "bicubic_antialias", hugging_face: "bicubic"}
_HEADS = {it["width"]: it["num_heads"] for it in VARIANTS.values() if it["width"] > 96}


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
        preprocessing: `"inception"` (mean and std 0.5, stretched) or `"imagenet"` (its
            mean and std, the middle 90 %); needed where nothing else says.
        position_mode: How positions are resized: `"bicubic_antialias"`, `"bicubic"`,
            `"dinov2"` or `"linear"`; as the format's own code does if `None`.
        num_heads: Number of heads, where neither notes nor the table of sizes tell.
        source_image_size: Of the checkpoint, if its positions are not of a square.

    Raises:
        ValueError: If the file is missing, damaged, a pickle or of another format; if a
            tensor is missing, unexpected, of another shape, or holds NaN or infinity;
            if notes contradict tensors; or if an option is needed or wrong.
    """
    if position_mode is not None:
        check_choice("position_mode", position_mode, POSITION_MODES)
    stored = read(path)
    form, tensors, remarks = _recognized(path, stored.tensors)
    notes = contract.read_notes(stored.notes, form, preprocessing)
    try:
        shown = form.fields(tensors)
        classes = form.classes(tensors)
        tensors, placed = _placed(form, tensors, shown, notes, source_image_size)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' is no whole {form.NAME} file: {error}") from error
    shown |= placed
    contract.check_agreement(notes.shapes, {**shown, "num_classes": classes})
    fields = {**shown, **notes.fields, **notes.preprocessing}
    fields["num_heads"] = num_heads or fields.get("num_heads") or _heads(shown)
    new_head = num_classes is not None and num_classes != classes
    fields |= _class_fields(fields, classes, num_classes, class_names)
    if new_head:
        fields["head_hidden"] = ()
    try:
        own = ViTConfig(**fields)
    except TypeError as error:
        raise ValueError(
            f"A note beside '{path}' has a value of a wrong type: {error}"
        ) from error
    _check_size(path, own, tensors)
    if new_head:
        tensors = {
            it: t for it, t in tensors.items() if not re.fullmatch(form.HEAD, it)
        }
        remarks.append(f"the head is new, all zeros, for {num_classes} classes")
    table = form.table(own, head=not new_head)
    _check_names(path, form, tensors, table)
    config = dataclasses.replace(
        own,
        image_size=image_size or own.image_size,
        patch_size=patch_size or own.patch_size,
    )
    mode = position_mode or _MODES[form]
    if config.grid != own.grid and own.positions == "learned":
        remarks.append(f"positions resized from {own.grid} to {config.grid} ({mode})")
    if config.patch_size != own.patch_size:
        remarks.append(f"patches resized from {own.patch_size} to {config.patch_size}")
    model = build_vit(config)
    _fill(model, config, path, tensors, table, own, mode)
    return Checkpoint(model, form.NAME, notes.source, tuple(remarks))


def _recognized(
    path, tensors: Mapping[str, np.ndarray]
) -> tuple[ModuleType, dict[str, np.ndarray], list[str]]:
    """The format, its tensors under canonical names, and what was left out and why."""
    for form in FORMATS:
        left = {
            name: reason
            for name in tensors
            for pattern, reason in form.IGNORED.items()
            if re.fullmatch(pattern, _bare(name, form)) or re.fullmatch(pattern, name)
        }
        used = {_bare(it, form): t for it, t in tensors.items() if it not in left}
        if form.recognises(used) and len(used) == len(tensors) - len(left):
            remarks = [f"{it} left out: {reason}" for it, reason in left.items()]
            return form, form.canonical(used), remarks
    raise ValueError(
        f"'{path}' holds no Vision Transformer of a known format "
        f"({', '.join(form.NAME for form in FORMATS)}). Its first tensors: "
        f"{', '.join(sorted(tensors)[:5]) or 'none'}"
    )


def _bare(name: str, form: ModuleType) -> str:
    """A name without what some files put before all names."""
    for prefix in form.PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _placed(
    form: ModuleType,
    tensors: dict[str, np.ndarray],
    shown: dict[str, Any],
    notes: contract.Notes,
    source_image_size: int | tuple[int, int] | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Which positions belong to patches, by their number; and so, the images' size.

    Where registers stand beside tokens that have positions, those go into the tokens:
    registers have none.
    """
    tokens = [name for name in form.TOKENS if name in tensors]
    name, patch_size = form.positions(tensors), shown["patch_size"]
    size = source_image_size or notes.shapes.get("image_size")
    size = (size, size) if isinstance(size, int) else size
    grid = size and tuple(side // patch_size for side in size)
    if name is None:
        if form is not google:  # the others always have them
            raise ValueError("it has no positions.")
        if grid is None:
            raise ValueError("it has no positions, so source_image_size is needed.")
        fields = {"positions": "sincos_2d", "positions_cover_prefix": False}
        return tensors, fields | {"image_size": tuple(size)}
    rows = tensors[name].shape[1]
    counts = {rows - covered: covered for covered in (0, len(tokens))}
    if grid is None:
        grid = next(
            (
                (side, side)
                for it in counts
                if (side := math.isqrt(max(it, 0))) ** 2 == it
            ),
            None,
        )
    if grid is None or math.prod(grid) not in counts or not all(grid):
        raise ValueError(
            f"its {rows} positions, of which {len(tokens)} may be of tokens, are not "
            f"those of {'a square' if grid is None else f'{grid} patches'}; "
            "source_image_size may say what image they are of."
        )
    covered = counts[math.prod(grid)]
    if covered and shown.get("num_registers"):
        tensors = dict(tensors)
        for index, token in enumerate(tokens):
            tensors[token] = tensors[token] + tensors[name][:, index : index + 1]
        tensors[name] = tensors[name][:, covered:]
        covered = 0
    return tensors, {
        "positions": "learned",
        "positions_cover_prefix": covered > 0,
        "image_size": tuple(side * patch_size for side in grid),
    }


def _heads(shown: dict[str, Any]) -> int:
    if shown["width"] not in _HEADS:
        raise ValueError(
            "num_heads is needed: no note says it, and no published size has this "
            f"width. Received: width={shown['width']}"
        )
    return _HEADS[shown["width"]]


def _class_fields(
    fields: dict[str, Any],
    classes: int | None,
    num_classes: int | None,
    class_names: Sequence[str],
) -> dict[str, Any]:
    if classes is None and num_classes is None:
        raise ValueError(
            "The file has no head, so num_classes must say how many classes a new one "
            "is for. Received: None"
        )
    count = num_classes or classes
    names = tuple(class_names) or tuple(fields.get("class_names", ()))
    if not class_names and (len(names) != count or num_classes not in (None, classes)):
        names = ()
    if not class_names and len(set(names)) < len(names):  # ImageNet has two cranes
        names = tuple(
            f"{name} ({index})" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        )
    return {"num_classes": count, "class_names": names}


def _check_size(path, own: ViTConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Checks, before any memory is taken, that the file has so many numbers at all."""
    least = own.depth * own.width * (4 * own.width + 2 * own.mlp_dim)
    present = sum(tensor.size for tensor in tensors.values())
    if least > present:
        raise ValueError(
            f"'{path}' has tensors whose shapes contradict each other: depth "
            f"{own.depth}, width {own.width} and mlp_dim {own.mlp_dim} need {least} "
            f"numbers in blocks, and it has {present}."
        )


def _check_names(path, form: ModuleType, tensors, table: Table) -> None:
    missing = sorted(table.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - table.keys())
    if missing or unexpected:
        raise ValueError(
            f"'{path}' is no whole {form.NAME} file. Missing: {_few(missing)}. "
            f"Unexpected: {_few(unexpected)}."
        )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "nothing"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _fill(
    model: keras.Model,
    config: ViTConfig,
    path,
    tensors,
    table: Table,
    own: ViTConfig,
    mode: str,
) -> None:
    """Gives every weight of the model its value; shapes are those of the file's model."""
    variables = {variable.path: variable for variable in model.weights}
    shapes = {name: tuple(it.shape) for name, it in variables.items()}
    kernel = shapes["patches/projection/kernel"]
    shapes["patches/projection/kernel"] = (own.patch_size, own.patch_size, *kernel[2:])
    prefix = own.num_prefix_tokens if own.positions_cover_prefix else 0
    if own.positions == "learned":
        shapes["positions/positions"] = (1, prefix + own.num_patches, own.width)
    filled = {path for paths, _ in table.values() for path in paths}
    new = {name for name in variables if name.startswith("head")}
    empty = sorted(variables.keys() - filled - (new if not new & filled else set()))
    if empty:
        raise ValueError(
            f"'{path}' says nothing of these weights of the model that its notes "
            f"describe: {_few(empty)}."
        )
    wrong = []
    for name, (paths, layout) in table.items():
        # Zeros of these shapes, of no size but where a layout puts them together.
        blanks = [np.broadcast_to(np.float32(0), shapes[path]) for path in paths]
        expected = layout.write(*blanks).shape
        if tensors[name].shape != expected:
            wrong.append(f"{name} is {tensors[name].shape}, must be {expected}")
    if wrong:
        raise ValueError(f"'{path}' has tensors of other shapes: {_few(wrong)}.")
    for name, (paths, layout) in table.items():
        tensor = tensors[name].astype("float32", copy=False)
        if not np.isfinite(tensor).all():
            raise ValueError(f"Tensor {name!r} of '{path}' holds NaN or infinity.")
        for weight, value in zip(paths, layout.read(tensor), strict=True):
            if weight == "positions/positions":
                resized = resize_positions(
                    value[:, prefix:], own.grid, config.grid, mode
                )
                value = np.concatenate([value[:, :prefix], resized], axis=1)
            elif weight == "patches/projection/kernel":
                value = resize_patches(value, kernel[0])
            variables[weight].assign(value)
