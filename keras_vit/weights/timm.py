"""timm's names, which are those of DeiT's and DINOv2's own repositories too.

Source: https://github.com/huggingface/pytorch-image-models, `vision_transformer.py` and
`deit.py`; https://github.com/facebookresearch/dinov2, `models/vision_transformer.py`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_vit.config import ViTConfig
from keras_vit.weights.layouts import (
    CONVOLUTION,
    SAME,
    Entry,
    Table,
    depth_of,
    linear,
    norm,
    renamed,
    stacked,
)

NAME = "timm"
PREFIXES = ("model.", "module.", "backbone.")
IGNORED = {
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


def recognises(names: Collection[str]) -> bool:
    """Whether these are such names."""
    return "patch_embed.proj.weight" in names and "blocks.0.attn.qkv.weight" in names


def canonical(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same under timm's names."""
    return renamed(tensors, _RENAMED)


def fields(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `ViTConfig` that shapes and names tell."""
    width, channels, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    outer = len(tensors["blocks.0.mlp.fc1.weight"])
    mlp_dim = tensors["blocks.0.mlp.fc2.weight"].shape[1]
    registers = tensors.get("reg_token")
    distilled = "dist_token" in tensors
    averaged = "fc_norm.weight" in tensors
    has_class_token = "cls_token" in tensors
    return {
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": depth_of(tensors, r"blocks\.(\d+)\."),
        "mlp_dim": mlp_dim,
        "activation": "swiglu" if outer == 2 * mlp_dim else "gelu",
        "class_token": has_class_token,
        "distillation_token": distilled,
        "num_registers": 0 if registers is None else registers.shape[1],
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "pool": "token" if has_class_token and not averaged else "mean",
        "norm_after_pool": averaged,
    }


def classes(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Number of classes of the head, or `None` if there is no head."""
    return len(tensors["head.weight"]) if "head.weight" in tensors else None


def positions(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Name of the tensor of positions."""
    return "pos_embed" if "pos_embed" in tensors else None


TOKENS = ("cls_token", "dist_token")
HEAD = r"head(_dist)?\..*"


def table(config: ViTConfig, head: bool = True) -> Table:
    """Every tensor of such a file, and the weights of the model that it holds."""
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
    found |= stacked(f"{theirs}.attn.qkv", parts)
    if config.qk_norm:
        found |= norm(f"{theirs}.attn.q_norm", f"{attention}/query_norm")
        found |= norm(f"{theirs}.attn.k_norm", f"{attention}/key_norm")
    found |= linear(f"{theirs}.attn.proj", f"{attention}/output_projection")
    hidden = [f"{mlp}/hidden"]
    if config.activation == "swiglu":  # the gate first
        hidden.append(f"{mlp}/hidden_value")
    found |= stacked(f"{theirs}.mlp.fc1", hidden)
    found |= linear(f"{theirs}.mlp.fc2", f"{mlp}/output_projection")
    if config.layer_scale is not None:
        found[f"{theirs}.ls1.gamma"] = Entry((f"{attention}_scale/gamma",), SAME)
        found[f"{theirs}.ls2.gamma"] = Entry((f"{mlp}_scale/gamma",), SAME)
    return found
