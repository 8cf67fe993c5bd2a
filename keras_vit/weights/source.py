"""What a file of published weights is: its format, and the model that it is of."""

import contextlib
import dataclasses
import math
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.config import VARIANTS, ViTConfig
from keras_vit.weights import contract
from keras_vit.weights.formats.format import Format
from keras_vit.weights.formats.google import GOOGLE
from keras_vit.weights.formats.recognition import Recognized, recognize
from keras_vit.weights.tensors import name_first, read

_HEADS = {
    (size["width"], size["depth"], size["mlp_dim"]): size["num_heads"]
    for size in VARIANTS.values()
    if "stem" not in size
}
# What tensors of unforeseen names and shapes lead to.
_DAMAGES = (KeyError, IndexError, TypeError, ValueError, ArithmeticError)
_SIDES = int | tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and what it and the notes beside it say of its model.

    Attributes:
        path: Of the file.
        form: Its format.
        tensors: Those that a model needs, under the format's canonical names.
        fields: Fields of `ViTConfig`, but for the classes' number.
        classes: Number of classes of its head, or `None` without one.
        position_mode: How the format's own code resizes positions.
        preprocessing: Where the scaling of pixels is known from, in words.
        unread: What only a new head makes superfluous, or `""`.
        remarks: What was left out, and what a user should know, a line each.
    """

    path: pathlib.Path
    form: Format
    tensors: dict[str, np.ndarray]
    fields: dict[str, Any]
    classes: int | None
    position_mode: str
    preprocessing: str
    unread: str
    remarks: tuple[str, ...]

    def config(self, num_classes: int | None, class_names: Sequence[str]) -> ViTConfig:
        """The file's own model, but for the head where the classes are others.

        Raises:
            ValueError: If there is no head and `num_classes` is `None`, if a note has a
                value that no model takes, or if shapes contradict each other.
        """
        fields = self.fields | _class_fields(self, num_classes, class_names)
        if num_classes is not None:
            fields["head_hidden"] = ()
        try:
            config = ViTConfig(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"No model is as '{self.path}' and the notes beside it say: {error}"
            ) from error
        self._check_size(config)
        return config

    def _check_size(self, config: ViTConfig) -> None:
        """Checks, before memory is taken, that the file has so many numbers at all."""
        least = config.depth * config.width * (4 * config.width + 2 * config.mlp_dim)
        present = sum(tensor.size for tensor in self.tensors.values())
        if least > present:
            raise ValueError(
                f"'{self.path}' has tensors whose shapes contradict each other: depth "
                f"{config.depth}, width {config.width} and mlp_dim {config.mlp_dim} "
                f"need {least} numbers in blocks, and it has {present}."
            )


def describe(
    path: str | pathlib.Path,
    *,
    preprocessing: str | None = None,
    num_heads: int | None = None,
    source_image_size: _SIDES = None,
    prefix: str | None = None,
) -> Source:
    """Reads a file and tells what it is; the options are those of `read_checkpoint`.

    Raises:
        ValueError: If it is no whole file of a known format, if notes contradict
            tensors, or if an option is needed that was not given.
    """
    path, stored = pathlib.Path(path), read(path)
    found = _recognize(path, stored.tensors, prefix)
    form, tensors = found.form, found.tensors
    with _told_as_damage(path, form):
        shown, classes = form.fields(tensors), form.classes(tensors)
        usual = form.preprocessing(tensors)
    notes = contract.read_notes(stored.notes, preprocessing, usual)
    if source_image_size is None:
        source_image_size = notes.shapes.get("image_size")
    with _told_as_damage(path, form):
        tensors, placed = _place(form, tensors, shown, source_image_size)
    shown |= placed
    contract.check_agreement(notes.shapes, {**shown, "num_classes": classes})
    fields = {**shown, **notes.fields, **notes.preprocessing}
    if num_heads is not None:
        fields["num_heads"] = num_heads
    elif "num_heads" not in fields:
        fields["num_heads"] = _num_heads(shown, notes.architecture)
    _check_pixels(path, found.pixels, fields)
    remarks = (*found.remarks, *notes.remarks)
    if found.pixels:
        remarks += (
            f"{name_first(list(found.pixels))} left out: the model's own say the same",
        )
    return Source(
        path,
        form,
        tensors,
        fields,
        classes,
        form.position_mode(found.names),
        notes.source,
        found.unread,
        remarks,
    )


def _recognize(
    path: pathlib.Path, tensors: dict[str, np.ndarray], prefix: str | None
) -> Recognized:
    try:
        return recognize(tensors, prefix)
    except _DAMAGES as error:
        raise ValueError(f"'{path}' can't be read: {error}") from error


@contextlib.contextmanager
def _told_as_damage(path: pathlib.Path, form: Format) -> Iterator[None]:
    """What goes wrong with tensors of unforeseen names and shapes, in one line."""
    try:
        yield
    except _DAMAGES as error:
        raise ValueError(f"'{path}' is no whole {form.name} file: {error}") from error


def _check_pixels(
    path: pathlib.Path, stored: Mapping[str, np.ndarray], fields: Mapping[str, Any]
) -> None:
    """Checks means and standard deviations in a file, of pixels in 0..1 or 0..255."""
    for name, tensor in stored.items():
        field = "mean" if name.endswith("mean") else "std"
        values = np.asarray(tensor, "float64").ravel()
        expected = np.broadcast_to(fields[field], (fields["channels"],))
        if not any(
            np.allclose(values, expected * scale, rtol=5e-3) for scale in (1, 255)
        ):
            raise ValueError(
                f"'{path}' scales pixels itself: {name} is {values.round(4).tolist()}, "
                f"but {field} is {expected.round(4).tolist()} by what else is known; "
                "preprocessing must be another."
            )


def _place(
    form: Format,
    tensors: dict[str, np.ndarray],
    shown: dict[str, Any],
    size: _SIDES,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Which positions belong to patches, by their number; and so, the images' size."""
    patch_size = shown["patch_size"]
    size = (size, size) if isinstance(size, int) else size
    grid = size and tuple(side // patch_size for side in size)
    if form.positions not in tensors:
        if form is not GOOGLE:  # the others always have them
            raise ValueError("it has no positions.")
        if grid is None:
            raise ValueError("it has no positions, so source_image_size is needed.")
        fields = {"positions": "sincos_2d", "positions_cover_prefix": False}
        return tensors, fields | {"image_size": tuple(size)}
    tokens = [name for name in form.tokens if name in tensors]
    registers = shown.get("num_registers", 0)
    table, width = tensors[form.positions], shown["width"]
    for name, rows in {
        form.positions: table.shape[1],
        **dict.fromkeys(tokens, 1),
    }.items():
        if tensors[name].shape != (1, rows, width):
            raise ValueError(
                f"{name} is {tensors[name].shape}, must be {(1, rows, width)}."
            )
    rows, grids = table.shape[1], {}
    # Positions may be of no token, of those before the registers, or of these too.
    for number in {0, len(tokens), len(tokens) + registers}:
        side = math.isqrt(max(rows - number, 0))
        candidate = grid or (side, side)
        if math.prod(candidate) == rows - number > 0:
            grids[number] = candidate
    if len(grids) != 1:
        raise ValueError(
            f"its {rows} positions, of which {len(tokens) + registers} may be of "
            "tokens, are not those of "
            f"{'a square' if grid is None else f'{grid} patches'}; "
            "source_image_size may say what image they are of."
        )
    ((number, grid),) = grids.items()
    if registers and 0 < number == len(tokens):
        tensors, number = _added_to_tokens(tensors, form, tokens), 0
    return tensors, {
        "positions": "learned",
        "positions_cover_prefix": number > 0,
        "image_size": tuple(side * patch_size for side in grid),
    }


def _added_to_tokens(
    tensors: dict[str, np.ndarray], form: Format, tokens: list[str]
) -> dict[str, np.ndarray]:
    """Positions go into the tokens that have some, where the registers have none."""
    table = tensors[form.positions].astype("float32")
    added = {
        name: tensors[name].astype("float32") + table[:, index : index + 1]
        for index, name in enumerate(tokens)
    }
    return tensors | added | {form.positions: table[:, len(tokens) :]}


def _num_heads(shown: dict[str, Any], architecture: str) -> int:
    size = shown["width"], shown["depth"], shown["mlp_dim"]
    # Models without a class token have other numbers at the same size.
    if size not in _HEADS or not (shown["class_token"] or architecture):
        raise ValueError(
            "num_heads is needed: no note says it, and no published size tells. "
            f"Received: width={size[0]}, depth={size[1]}, mlp_dim={size[2]}, "
            f"class_token={shown['class_token']}"
        )
    return _HEADS[size]


def _class_fields(
    source: Source, num_classes: int | None, class_names: Sequence[str]
) -> dict[str, Any]:
    if num_classes is None and source.unread:
        raise ValueError(
            f"'{source.path}' holds more than a {source.form.name} model with one "
            f"linear layer for a head, and what it does stands in no file: "
            f"{source.unread}. num_classes leaves it out, for a new head. "
            "Received: None"
        )
    if num_classes is None and source.classes is None:
        raise ValueError(
            "The file has no head, so num_classes must say how many classes a new one "
            "is for. Received: None"
        )
    own = num_classes is None
    count = source.classes if own else num_classes
    if class_names:
        return {"num_classes": count, "class_names": tuple(class_names)}
    names = source.fields.get("class_names", ()) if own else ()
    if len(names) != count:
        return {"num_classes": count, "class_names": ()}
    counts = Counter(names)  # ImageNet has two cranes
    names = (
        f"{name} ({index})" if counts[name] > 1 else name
        for index, name in enumerate(names)
    )
    return {"num_classes": count, "class_names": tuple(names)}
