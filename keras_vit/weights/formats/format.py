"""What a format of published weights is: its names, and what they tell."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_vit.config import ViTConfig
from keras_vit.weights.formats.layouts import Table

Tensors = Mapping[str, np.ndarray]


class Format(NamedTuple):
    """One way to name and pack the weights of a Vision Transformer.

    Attributes:
        name: In messages.
        anchor: A name that every file has, once for each model in it.
        ignored: Patterns of the names that no model here needs, and why.
        recognises: Names without prefixes -> whether they are of this format.
        canonical: Tensors -> the same, where there are several names under one.
        fields: Canonical tensors -> fields of `ViTConfig` that they tell. What follows
            is for canonical tensors too.
        classes: Tensors -> number of classes of the head, or `None` without one.
        positions: Name of the positions.
        tokens: Names of the tokens that may have positions, in their order; registers,
            which stand behind them, are not among them.
        head: Pattern of the names of the head.
        heads: Names of PyTorch's linear layers of the head, the one for the classes
            first; a layer of another name may stand for it. `()` where none may.
        table: Configuration, and whether there is a head -> each tensor's weights.
        position_mode: All names of the file -> how the format's own code resizes
            positions, one of `POSITION_MODES`.
        preprocessing: Tensors -> the one of `PREPROCESSINGS` that goes without saying,
            or `None`.
        optional: Pattern of the biases that a file may leave out, all together.
        prefixes: What the format's own code puts before all names, or before all but
            those of the head.
        separator: Between the parts of a name.
    """

    name: str
    anchor: str
    ignored: Mapping[str, str]
    recognises: Callable[[Collection[str]], bool]
    canonical: Callable[[Tensors], dict[str, np.ndarray]]
    fields: Callable[[Tensors], dict[str, Any]]
    classes: Callable[[Tensors], int | None]
    positions: str
    tokens: tuple[str, ...]
    head: str
    heads: tuple[str, ...]
    table: Callable[[ViTConfig, bool], Table]
    position_mode: Callable[[Collection[str]], str]
    preprocessing: Callable[[Tensors], str | None] = lambda tensors: None
    optional: str = ""
    prefixes: tuple[str, ...] = ()
    separator: str = "."
