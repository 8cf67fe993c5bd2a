"""A model -> a folder with `model.safetensors` and `config.json`, as timm reads it."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
from keras_vit_device.files import new_folder, whole_file, write_json
from safetensors.numpy import save_file

from keras_vit.config import ViTConfig
from keras_vit.reuse import config_of
from keras_vit.weights.contract import our_metadata
from keras_vit.weights.formats.timm import TIMM
from keras_vit.weights.tensors import SINGLE

# timm's own, which its configurations can't change.
_EPSILON = 1e-6


def save_timm(model: keras.Model, folder: str | pathlib.Path) -> tuple[str, ...]:
    """Writes a model's weights under timm's names, bit by bit, and its description.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` reads the folder, and so
    does `load_checkpoint`, which gets the same model back.

    Args:
        model: Built by `build_vit`.
        folder: New or empty.

    Returns:
        What a reader of the folder should know, a line each.

    Raises:
        ValueError: If another function made the model, it has parts that timm's Vision
            Transformers have not, or the folder holds something.
    """
    folder = new_folder(folder)
    config = config_of(model)
    _check_expressible(config)
    weights = {variable.path: variable.numpy() for variable in model.weights}
    weights |= _fixed_positions(model, config)
    # What is computed here stands in the file.
    config = dataclasses.replace(config, positions="learned")
    tensors = {
        name: np.ascontiguousarray(layout.write(*(weights[path] for path in paths)))
        for name, (paths, layout) in TIMM.table(config, True).items()
    }
    config = _registers_alone(tensors, config)
    metadata = {"format": "pt", **our_metadata(config)}
    with whole_file(folder / SINGLE) as partial:
        save_file(tensors, partial, metadata)
    write_json(folder / "config.json", _description(config))
    remarks = []
    if config.norm_epsilon != _EPSILON:
        remarks.append(f"norms have epsilon {config.norm_epsilon}, in timm {_EPSILON}")
    if config.head_output == "softmax":
        remarks.append("probabilities here are logits in timm")
    return tuple(remarks)


def _check_expressible(config: ViTConfig) -> None:
    distilled = config.distillation_token
    unknown = {
        "stem": config.stem != (),
        "reduce_tokens": config.reduce_tokens != (),
        "head_hidden": config.head_hidden != (),
        "pool": config.pool not in ("token", "mean"),
        "num_registers": distilled and config.num_registers > 0,
        "activation": distilled and config.activation == "swiglu",
        "norm_after_pool": distilled and config.norm_after_pool,
        "positions_cover_prefix": distilled and not config.positions_cover_prefix,
    }
    found = [
        f"{name}={getattr(config, name)!r}" for name, is_so in unknown.items() if is_so
    ]
    if found:
        raise ValueError(
            "timm's Vision Transformers have no convolutional stem, go on with all tokens, "
            "have no hidden layers in the head, and pool by token or mean; those with a distillation token have "
            "positions for all tokens, no registers, no SwiGLU, and the norm before the "
            f"pool. Received: {', '.join(found)}"
        )


def _fixed_positions(model: keras.Model, config: ViTConfig) -> dict[str, np.ndarray]:
    if config.positions == "learned":
        return {}
    table = model.get_layer("positions").positions
    return {"positions/positions": np.asarray(table, "float32")}


def _registers_alone(tensors: dict[str, np.ndarray], config: ViTConfig) -> ViTConfig:
    """timm's registers have no positions: ours, where they have, get them added."""
    if not (config.num_registers and config.positions_cover_prefix):
        return config
    place, table = 0, tensors["pos_embed"]
    for name in ("cls_token", "dist_token", "reg_token"):
        if name in tensors:
            count = tensors[name].shape[1]
            tensors[name] = tensors[name] + table[:, place : place + count]
            place += count
    tensors["pos_embed"] = np.ascontiguousarray(table[:, place:])
    return dataclasses.replace(config, positions_cover_prefix=False)


def _description(config: ViTConfig) -> dict[str, Any]:
    """`config.json` for timm: what class, its arguments, and what pixels it expects."""
    architecture = "vit_base_patch16_224"
    if config.distillation_token:
        architecture = "deit_base_distilled_patch16_224"
    elif config.activation == "swiglu":
        architecture = "vit_giant_patch14_dinov2"
    hidden = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
    arguments = {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size,
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
        # The half keeps its rounding down from going below.
        "mlp_ratio": (hidden + 0.5) / config.width,
        "qk_norm": config.qk_norm,
        "init_values": config.layer_scale,
        "class_token": config.class_token,
        "reg_tokens": config.num_registers,
        "no_embed_class": not config.positions_cover_prefix,
        "global_pool": "token" if config.pool == "token" else "avg",
        "fc_norm": config.norm_after_pool,
    }
    if config.activation in ("relu", "gelu_tanh"):
        arguments["act_layer"] = config.activation
    modes = {"crop": "center", "stretch": "squash"}
    pixels = {
        "input_size": [config.channels, *config.image_size],
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
        "crop_pct": config.crop,
        "crop_mode": modes[config.resize],
        "fixed_input_size": True,
    }
    return {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.width,
        "model_args": arguments,
        "pretrained_cfg": {**pixels, "num_classes": config.num_classes},
        "label_names": list(config.class_names),
    }
