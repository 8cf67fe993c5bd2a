"""What is done to a finished model: its configuration read, its head or its images changed."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit import layers
from keras_vit.config import ViTConfig
from keras_vit.model import FIELDS, KINDS, build_vit
from keras_vit.resampling import resize_patches, resize_positions

# Of red, green and blue in luma: what Pillow and MediaPipe make grey of.
_LUMA = (0.299, 0.587, 0.114)
# How positions are resized, as of `resize_positions`.
_POSITION_MODE = "bicubic_antialias"


# Layers that only some models have, and what their fields are where they don't.
_OPTIONAL = ("stem", "prefix_tokens", "patch_dropout", "scale")
_ABSENT = {
    "stem": (),
    "class_token": False,
    "distillation_token": False,
    "num_registers": 0,
    "patch_dropout": 0.0,
    "layer_scale": None,
}


def config_of(model: keras.Model) -> ViTConfig:
    """The configuration of a model that `build_vit` made, read from its layers.

    Args:
        model: Built by `build_vit`, or loaded from a file that holds such a model.

    Raises:
        ValueError: If another function made the model, or its end was replaced.
    """
    found = {layer.name: layer for layer in model.layers}
    last = {"head", "mean_of_heads", "probabilities"}
    if not {"scaling", "patches", "block_00_mlp"} <= found.keys() or not (
        model.layers[-1].name in last and len(model.outputs) == 1
    ):
        raise ValueError(
            "config_of reads models made by build_vit. Received: a model named "
            f"{model.name!r} that ends in {model.layers[-1].name!r}"
        )
    try:
        return ViTConfig(**_ABSENT | _read_fields(found) | _shape_fields(model, found))
    except (AttributeError, KeyError) as error:
        raise ValueError(
            "config_of reads models made by build_vit. Received: a model with layers of "
            f"these names but of other kinds. {error}"
        ) from error


def with_head(
    model: keras.Model, num_classes: int, class_names: Sequence[str] = ()
) -> keras.Model:
    """A new model with all weights of another; the head is new where classes differ.

    Args:
        model: Built by `build_vit`.
        num_classes: Number of classes of the new model.
        class_names: Name of each, or `()`.

    Raises:
        ValueError: If another function made the model.
    """
    config = config_of(model)
    classes = {"num_classes": num_classes, "class_names": tuple(class_names)}
    changed = dataclasses.replace(config, **classes)
    copy = build_vit(changed)
    for layer in copy.layers:
        if layer.weights and (changed == config or not layer.name.startswith("head")):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def with_rgb_input(model: keras.Model) -> keras.Model:
    """A model of grey images, for colour images: it reads their luma.

    In a model that `build_vit` made, the weights of red, green and blue go into the
    kernel of the first convolution, so it costs no operation; before any other comes one
    convolution of 1 x 1. An image of equal channels gives the same numbers.

    Args:
        model: From images `(b, height, width, 1)`.

    Raises:
        ValueError: If the model has other channels.

    Source: ITU-R BT.601, section 2.5.1 (luma).
    """
    channels = model.input_shape[-1]
    if channels != 1:
        raise ValueError(
            f"Only a model of one channel reads luma. Received: {channels} channels"
        )
    try:
        config = config_of(model)
    except ValueError:
        return _behind_luma(model)
    changed = dataclasses.replace(
        config, channels=3, mean=config.mean * 3, std=config.std * 3
    )
    copy = build_vit(changed)
    for layer in filter(lambda layer: layer.weights, copy.layers):
        weights = model.get_layer(layer.name).get_weights()
        if layer.name == ("stem" if config.stem else "patches"):
            weights[0] = weights[0] * np.array(_LUMA)[:, None]
        layer.set_weights(weights)
    return copy


def _behind_luma(model: keras.Model) -> keras.Model:
    image = keras.Input((*model.input_shape[1:3], 3), name="image")
    luma = keras.layers.Conv2D(1, 1, use_bias=False, trainable=False, name="luma")
    grey = luma(image)
    luma.set_weights([np.reshape(_LUMA, (1, 1, 3, 1))])
    return keras.Model(image, model(grey))


def with_image_size(
    model: keras.Model,
    image_size: tuple[int, int],
    position_mode: str = _POSITION_MODE,
) -> keras.Model:
    """A new model with all weights of another, for images of another size.

    Patches stay as many pixels wide, so there are more or fewer of them. Learned
    positions of patches are resized as an image is; all other weights are the same.

    Args:
        model: Built by `build_vit`.
        image_size: Height and width in pixels.
        position_mode: As of `resize_positions`.

    Raises:
        ValueError: If another function made the model, or its patches don't divide the
            size.
    """
    config = config_of(model)
    changed = dataclasses.replace(config, image_size=tuple(image_size))
    return _with_grid(model, config, changed, position_mode)


def with_patch_size(model: keras.Model, patch_size: int) -> keras.Model:
    """A new model with all weights of another, for patches of another side.

    Images stay as large, so there are more patches of a smaller side. Their weights are
    resized so that they see the same in an image resized with them; learned positions
    are resized as an image is.

    Args:
        model: Built by `build_vit`.
        patch_size: Side of the new patches in pixels.

    Raises:
        ValueError: If another function made the model, or such patches don't divide its
            images.

    Source: https://arxiv.org/abs/2212.08013, section 3.4 (PI-resize).
    """
    config = config_of(model)
    return _with_grid(model, config, dataclasses.replace(config, patch_size=patch_size))


def with_fewer_tokens(
    model: keras.Model, reduce_tokens: float | str | Sequence[tuple[int, str, float]]
) -> keras.Model:
    """A new model with all weights of another that goes on with fewer tokens.

    Its answers change: without training further, by much if it prunes.

    Args:
        model: Built by `build_vit`.
        reduce_tokens: As of `ViTConfig`; `()` for all tokens.

    Raises:
        ValueError: If another function made the model, or it can't be reduced so.
    """
    config = config_of(model)
    changed = dataclasses.replace(config, reduce_tokens=reduce_tokens)
    return _with_grid(model, config, changed)


def _with_grid(
    model: keras.Model,
    config: ViTConfig,
    changed: ViTConfig,
    mode: str = _POSITION_MODE,
) -> keras.Model:
    """A model of other patches or fewer tokens; weights that have their size follow."""
    if changed == config:
        return model
    copy = build_vit(changed)
    for layer in filter(lambda layer: layer.weights, copy.layers):
        weights = model.get_layer(layer.name).get_weights()
        if isinstance(layer, layers.LearnedPositions):
            prefix = config.num_prefix_positions
            patches = resize_positions(
                weights[0][:, prefix:], config.grid, changed.grid, mode
            )
            weights[0] = np.concatenate([weights[0][:, :prefix], patches], axis=1)
        if layer.name == "patches":
            weights[0] = resize_patches(weights[0], layer.patch_size)
        layer.set_weights(weights)
    return copy


def _read_fields(found: dict[str, keras.Layer]) -> dict[str, Any]:
    """Fields that are arguments of layers, as `FIELDS` has them."""
    places = {name: name for name in FIELDS}
    places |= {name: f"block_00_{name}" for name in ("attention", "mlp")}
    places["scale"] = "block_00_mlp_scale"
    return {
        field: getattr(found[places[layer]], argument)
        for layer, arguments in FIELDS.items()
        for argument, field in arguments.items()
        if places[layer] in found or layer not in _OPTIONAL
    }


def _shape_fields(model: keras.Model, found: dict[str, keras.Layer]) -> dict[str, Any]:
    """Fields that follow from which layers there are, of what kind, in which order."""
    _, height, width, channels = model.input_shape
    order = list(found)
    stem = found["stem"].filters if "stem" in found else ()
    covers = "prefix_tokens" in found and (
        order.index("prefix_tokens") < order.index("positions")
    )
    depth = sum(name.endswith("_mlp_add") for name in found)
    drop_path = found.get(f"block_{depth - 1:02d}_mlp_drop_path")
    softmax = found["head"].head_output == "softmax" or "probabilities" in found
    return {
        "image_size": (height, width),
        "channels": channels,
        "patch_size": found["patches"].patch_size * 2 ** len(stem),
        "positions": _kind_of(found["positions"]),
        "positions_cover_prefix": covers,
        "depth": depth,
        "drop_path": drop_path.rate if drop_path else 0.0,
        "reduce_tokens": tuple(_reductions(found, depth)),
        "pool": _kind_of(found["pool"]),
        "norm_after_pool": order.index("final_norm") > order.index("pool"),
        "head_output": "softmax" if softmax else "logits",
    }


def _reductions(
    found: dict[str, keras.Layer], depth: int
) -> Iterator[tuple[int, str, float]]:
    for block in range(depth):
        if prune := found.get(f"block_{block:02d}_prune"):
            yield block, "prune", prune.keep
        if pool := found.get(f"block_{block:02d}_pool"):
            yield block, "pool", pool.side


def _kind_of(layer: keras.Layer) -> str:
    """What a field calls the kind of this layer, by the table that made it."""
    names = {kind: name for name, (kind, _) in KINDS[layer.name].items()}
    return names[type(layer)]


@contextlib.contextmanager
def switch(
    layers: Sequence[keras.Layer], attribute: str, value: bool
) -> Iterator[None]:
    """While the block runs, this attribute of these layers has this value."""
    changed = [layer for layer in layers if getattr(layer, attribute) != value]
    try:
        for layer in changed:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer in changed:
            setattr(layer, attribute, not value)
