"""Heads of checkpoints: one linear layer is read, whatever its name; more is named."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_vit.weights.formats.format import Format, Tensors
from keras_vit.weights.tensors import name_first

# DINOv2's classifier, which reads the class token and the mean of the patches.
_BOTH = "linear_head"
# What code around a Vision Transformer calls what stands behind it.
_NAMES = (
    _BOTH,
    "head",
    "heads",
    "fc",
    "classifier",
    "mlp_head",
    "linear",
    "logits",
    "out",
)


class Head(NamedTuple):
    """What of a file's tensors is its head.

    Attributes:
        tensors: All, the head's under the names of the format; or all but the head's.
        unread: What the head is, where no model here has it, or `""`.
        remarks: What a user should know, a line each.
    """

    tensors: Tensors
    unread: str = ""
    remarks: tuple[str, ...] = ()


def is_of_head(form: Format, name: str) -> bool:
    """Whether a name, without what stands before the model's, is usually a head's."""
    return name.split(".")[0] in _NAMES or bool(re.fullmatch(form.head, name))


def read_head(form: Format, tensors: Tensors) -> Head:
    """Finds the head by the usual names and gives it those of the format.

    Args:
        form: If it has no `heads`, nothing is done.
        tensors: Canonical, but for the head's names.
    """
    own = {f"{layer}.{kind}" for layer in form.heads for kind in ("weight", "bias")}
    found = sorted(own & tensors.keys())
    others = sorted(
        it for it in tensors.keys() - own if form.heads and is_of_head(form, it)
    )
    remarks = []
    if others:
        layer = others[-1].rpartition(".")[0]
        if found or not _is_linear(form, tensors, others):
            shown = [f"{it} {tensors[it].shape}" for it in (*found, *others)]
            rest = {k: it for k, it in tensors.items() if k not in (*found, *others)}
            return Head(rest, name_first(shown))
        remarks.append(f"the head is {layer!r}")
        kinds = {name: name.rpartition(".")[2] for name in others}
        tensors = {
            f"{form.heads[0]}.{kinds[name]}" if name in kinds else name: it
            for name, it in tensors.items()
        }
    for layer in form.heads:
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        if weight in tensors and bias not in tensors and tensors[weight].ndim == 2:
            zeros = np.zeros(len(tensors[weight]), "float32")
            tensors = {**tensors, bias: zeros}
            remarks.append(f"{layer!r} has no bias: zeros")
    return Head(tensors, "", tuple(remarks))


def _is_linear(form: Format, tensors: Tensors, names: Sequence[str]) -> bool:
    """Whether the names are one linear layer's, over as many features as there are."""
    layer = names[-1].rpartition(".")[0]
    weight = tensors.get(f"{layer}.weight")
    if {*names} - {f"{layer}.weight", f"{layer}.bias"} or np.ndim(weight) != 2:
        return False
    positions = tensors.get(form.positions)
    width = weight.shape[1] // (2 if layer == _BOTH else 1)
    return positions is None or width == positions.shape[-1]
