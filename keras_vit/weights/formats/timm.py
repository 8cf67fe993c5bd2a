"""timm's names, which are those of DeiT's and DINOv2's own repositories too.

Source: https://github.com/huggingface/pytorch-image-models, `vision_transformer.py` and
`deit.py`; https://github.com/facebookresearch/dinov2, `models/vision_transformer.py`.
"""

import re
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

# What timm's code sets by the name of a model, and neither tensors nor sizes tell.
_BY_ARCHITECTURE = {
    r"vit_base_patch16_gap_224": {"num_heads": 16},
    r"vit_(so400m|giantopt)_.*": {"num_heads": 16},
    r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip_.*"
    r"|vit_large_patch16_siglip_(gap_)?512": {"activation": "gelu_tanh"},
}
_IGNORED = {
    r"mask_token": "of pretraining",
    r"pre_logits\..*": "unused by timm",
}
# What has another name in DINOv2's and DeiT-III's own files.
_RENAMED = {
    r"^register_tokens$": "reg_token",
    r"\.gamma_([12])$": r".ls\1.gamma",
    r"\.mlp\.w12\.": ".mlp.fc1.",
    r"\.mlp\.w3\.": ".mlp.fc2.",
}


def said_by_architecture(name: str) -> dict[str, Any]:
    """Fields of `ViTConfig` that timm's name of a model tells."""
    fields = {}
    for pattern, told in _BY_ARCHITECTURE.items():
        if re.fullmatch(pattern, name):
            fields |= told
    return fields


def _recognises(names: Collection[str]) -> bool:
    return "patch_embed.proj.weight" in names and "blocks.0.attn.qkv.weight" in names


def _fields(tensors: Tensors) -> dict[str, Any]:
    width, channels, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    outer = len(tensors["blocks.0.mlp.fc1.weight"])
    mlp_dim = tensors["blocks.0.mlp.fc2.weight"].shape[1]
    registers = tensors.get("reg_token")
    distilled = "dist_token" in tensors
    averaged = "fc_norm.weight" in tensors
    has_class_token = "cls_token" in tensors
    # DINOv2's classifiers read the class token and the mean of the patches.
    head = tensors.get("head.weight")
    both = has_class_token and head is not None and head.shape[1] == 2 * width
    # Norms of queries and keys are as wide as a head.
    query_norm = tensors.get("blocks.0.attn.q_norm.weight")
    heads = {} if query_norm is None else {"num_heads": width // len(query_norm)}
    return heads | {
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": depth_of(tensors, r"blocks\.(\d+)\."),
        "mlp_dim": mlp_dim,
        "activation": "swiglu" if outer == 2 * mlp_dim else "gelu",
        "class_token": has_class_token,
        "distillation_token": distilled,
        "num_registers": 0 if registers is None else registers.shape[1],
        "qk_norm": query_norm is not None,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "pool": "token_and_mean"
        if both
        else "token"
        if has_class_token and not averaged
        else "mean",
        "norm_after_pool": averaged,
    }


def _classes(tensors: Tensors) -> int | None:
    return len(tensors["head.weight"]) if "head.weight" in tensors else None


def _position_mode(names: Collection[str]) -> str:
    # DINOv2's own files have what it was pretrained with; those with registers are
    # resized as timm does.
    native = "mask_token" in names and "register_tokens" not in names
    return "dinov2" if native else "bicubic_antialias"


def _table(config: ViTConfig, head: bool) -> Table:
    found: Table = {
        "patch_embed.proj.weight": Entry(("patches/projection/kernel",), CONVOLUTION),
        "patch_embed.proj.bias": Entry(("patches/projection/bias",), SAME),
    }
    tokens = {
        "cls_token": ("class_token", config.class_token),
        "dist_token": ("distillation_token", config.distillation_token),
        "reg_token": ("register_tokens", config.num_registers),
    }
    for theirs, (ours, present) in tokens.items():
        if present:
            found[theirs] = Entry((f"prefix_tokens/{ours}",), SAME)
    if config.positions == "learned":
        found["pos_embed"] = Entry(("positions/positions",), SAME)
    for index in range(config.depth):
        found |= _block(f"blocks.{index}", f"block_{index:02d}", config)
    found |= norm("fc_norm" if config.norm_after_pool else "norm", "final_norm")
    if head:
        found |= linear("head", "head/logits")
        if config.distillation_token:
            found |= linear("head_dist", "head_distillation/logits")
    return found


def _block(theirs: str, ours: str, config: ViTConfig) -> Table:
    attention, mlp = f"{ours}_attention", f"{ours}_mlp"
    found = norm(f"{theirs}.norm1", f"{attention}_norm")
    found |= norm(f"{theirs}.norm2", f"{mlp}_norm")
    parts = [f"{attention}/{part}" for part in ("query", "key", "value")]
    found |= stack(f"{theirs}.attn.qkv", parts)
    if config.qk_norm:
        found |= norm(f"{theirs}.attn.q_norm", f"{attention}/query_norm")
        found |= norm(f"{theirs}.attn.k_norm", f"{attention}/key_norm")
    found |= linear(f"{theirs}.attn.proj", f"{attention}/output_projection")
    hidden = [f"{mlp}/hidden"]
    if config.activation == "swiglu":  # the gate first
        hidden.append(f"{mlp}/hidden_value")
    found |= stack(f"{theirs}.mlp.fc1", hidden)
    found |= linear(f"{theirs}.mlp.fc2", f"{mlp}/output_projection")
    if config.layer_scale is not None:
        found[f"{theirs}.ls1.gamma"] = Entry((f"{attention}_scale/gamma",), SAME)
        found[f"{theirs}.ls2.gamma"] = Entry((f"{mlp}_scale/gamma",), SAME)
    return found


TIMM = Format(
    name="timm",
    anchor="patch_embed.proj.weight",
    ignored=_IGNORED,
    recognises=_recognises,
    canonical=lambda tensors: rename(tensors, _RENAMED),
    fields=_fields,
    classes=_classes,
    positions="pos_embed",
    tokens=("cls_token", "dist_token"),
    head=r"head(_dist)?\..*",
    heads=("head", "head_dist"),
    optional=r"blocks\.\d+\.attn\.qkv\.bias",
    table=_table,
    position_mode=_position_mode,
)
