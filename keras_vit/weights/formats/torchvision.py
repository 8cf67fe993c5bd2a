"""torchvision's names: `vit_b_16` and its sisters.

Source: https://github.com/pytorch/vision, `torchvision/models/vision_transformer.py`.
"""

from collections.abc import Collection
from typing import Any

from keras_vit.config import ViTConfig
from keras_vit.weights.formats.format import Format, Tensors
from keras_vit.weights.formats.layouts import (
    CONVOLUTION,
    SAME,
    Entry,
    Table,
    depth_of,
    linear,
    norm,
    rename,
    stack,
)

# Before version 0.13, and torch.nn.MultiheadAttention's names as those of a layer.
_RENAMED = {
    r"\.mlp\.linear_1\.": ".mlp.0.",
    r"\.mlp\.linear_2\.": ".mlp.3.",
    r"\.in_proj_(weight|bias)$": r".in_proj.\1",
}
_BLOCK = "encoder.layers.encoder_layer_"


def _recognises(names: Collection[str]) -> bool:
    return {"conv_proj.weight", "encoder.pos_embedding", "encoder.ln.weight"} <= {
        *names
    }


def _fields(tensors: Tensors) -> dict[str, Any]:
    width, channels, patch_size, _ = tensors["conv_proj.weight"].shape
    hidden = tensors.get("heads.pre_logits.weight")
    return {
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": depth_of(tensors, r"encoder\.layers\.encoder_layer_(\d+)\."),
        "mlp_dim": len(tensors[f"{_BLOCK}0.mlp.0.weight"]),
        "activation": "gelu",
        "norm_epsilon": 1e-6,
        "class_token": True,
        "pool": "token",
        "head_hidden": () if hidden is None else (len(hidden),),
        "head_activation": "gelu" if hidden is None else "tanh",
    }


def _classes(tensors: Tensors) -> int | None:
    return len(tensors["heads.head.weight"]) if "heads.head.weight" in tensors else None


def _preprocessing(tensors: Tensors) -> str:
    # Images of more than 224 pixels, and patches of 14, are those of SWAG's weights.
    patch_size = tensors["conv_proj.weight"].shape[2]
    patches = tensors["encoder.pos_embedding"].shape[1] - 1
    swag = patch_size == 14 or patches * patch_size**2 > 224**2
    return "torchvision_swag" if swag else "torchvision"


def _table(config: ViTConfig, head: bool) -> Table:
    found: Table = {
        "conv_proj.weight": Entry(("patches/projection/kernel",), CONVOLUTION),
        "conv_proj.bias": Entry(("patches/projection/bias",), SAME),
        "class_token": Entry(("prefix_tokens/class_token",), SAME),
        "encoder.pos_embedding": Entry(("positions/positions",), SAME),
    }
    for index in range(config.depth):
        theirs, ours = f"{_BLOCK}{index}", f"block_{index:02d}"
        found |= norm(f"{theirs}.ln_1", f"{ours}_attention_norm")
        found |= norm(f"{theirs}.ln_2", f"{ours}_mlp_norm")
        attention = f"{theirs}.self_attention"
        parts = [f"{ours}_attention/{part}" for part in ("query", "key", "value")]
        found |= stack(f"{attention}.in_proj", parts)
        found |= linear(f"{attention}.out_proj", f"{ours}_attention/output_projection")
        found |= linear(f"{theirs}.mlp.0", f"{ours}_mlp/hidden")
        found |= linear(f"{theirs}.mlp.3", f"{ours}_mlp/output_projection")
    found |= norm("encoder.ln", "final_norm")
    if head:
        if config.head_hidden:
            found |= linear("heads.pre_logits", "head/hidden_0")
        found |= linear("heads.head", "head/logits")
    return found


TORCHVISION = Format(
    name="torchvision",
    anchor="conv_proj.weight",
    ignored={},
    recognises=_recognises,
    canonical=lambda tensors: rename(tensors, _RENAMED),
    fields=_fields,
    classes=_classes,
    positions="encoder.pos_embedding",
    tokens=("class_token",),
    head=r"heads\..*",
    heads=("heads.head", "heads.pre_logits"),
    table=_table,
    position_mode=lambda names: "bicubic_corners",
    preprocessing=_preprocessing,
)
