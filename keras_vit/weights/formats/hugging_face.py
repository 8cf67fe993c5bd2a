"""Hugging Face transformers' names: ViT, DeiT, DINOv2 with and without registers.

Source: https://github.com/huggingface/transformers, `models/vit`, `models/deit`,
`models/dinov2`, `models/dinov2_with_registers`; version 5's names `conversion_mapping.py`.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

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

_IGNORED = {
    r".*\bmask_token": "of pretraining",
    r"pooler\..*": "transformers' classifiers don't read it; your own code may",
}
# Version 5's names in memory.
_RENAMED = {
    r"^layers\.(\d+)\.": r"encoder.layer.\1.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
}
_ONLY_VIT = {
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"(\.\d+)\.mlp\.fc2\.": r"\1.output.dense.",
}
_PATCHES = "embeddings.patch_embeddings.projection"
_BLOCK = "encoder.layer"


def _recognises(names: Collection[str]) -> bool:
    return f"{_PATCHES}.weight" in names


def _canonical(tensors: Tensors) -> dict[str, np.ndarray]:
    """The same under version 4's names."""
    vit = any(".layernorm_before." in name for name in tensors)
    return rename(tensors, _RENAMED | (_ONLY_VIT if vit else {}))


def _fields(tensors: Tensors) -> dict[str, Any]:
    width, channels, patch_size, _ = tensors[f"{_PATCHES}.weight"].shape
    vit = f"{_BLOCK}.0.layernorm_before.weight" in tensors
    gated = f"{_BLOCK}.0.mlp.weights_in.weight" in tensors
    last = (
        "output.dense.weight"
        if vit
        else "mlp.weights_out.weight"
        if gated
        else "mlp.fc2.weight"
    )
    registers = tensors.get("embeddings.register_tokens")
    head = tensors.get("classifier.weight")
    # DINOv2's classifiers read the class token and the mean of the patches.
    both = not vit and head is not None and head.shape[1] == 2 * width
    return {
        "pool": "token_and_mean" if both else "token",
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": depth_of(tensors, r"encoder\.layer\.(\d+)\."),
        "mlp_dim": tensors[f"{_BLOCK}.0.{last}"].shape[1],
        "activation": "swiglu" if gated else "gelu",
        # Transformers' own defaults; config.json says if it is another.
        "norm_epsilon": 1e-12 if vit else 1e-6,
        "class_token": True,
        "distillation_token": "embeddings.distillation_token" in tensors,
        "num_registers": 0 if registers is None else registers.shape[1],
        "layer_scale": None if vit else 1.0,
    }


def _classes(tensors: Tensors) -> int | None:
    for name in ("classifier.weight", "cls_classifier.weight"):
        if name in tensors:
            return len(tensors[name])
    return None


def _position_mode(names: Collection[str]) -> str:
    registers = "embeddings.register_tokens" in names
    return "bicubic_antialias" if registers else "bicubic"


def _table(config: ViTConfig, head: bool) -> Table:
    found: Table = {
        f"{_PATCHES}.weight": Entry(("patches/projection/kernel",), CONVOLUTION),
        f"{_PATCHES}.bias": Entry(("patches/projection/bias",), SAME),
    }
    tokens = {
        "cls_token": ("class_token", config.class_token),
        "distillation_token": ("distillation_token", config.distillation_token),
        "register_tokens": ("register_tokens", config.num_registers),
    }
    for theirs, (ours, present) in tokens.items():
        if present:
            found[f"embeddings.{theirs}"] = Entry((f"prefix_tokens/{ours}",), SAME)
    if config.positions == "learned":
        name = "embeddings.position_embeddings"
        found[name] = Entry(("positions/positions",), SAME)
    block = _vit_block if config.layer_scale is None else _dinov2_block
    for index in range(config.depth):
        theirs, ours = f"{_BLOCK}.{index}", f"block_{index:02d}"
        for part in ("query", "key", "value"):
            name = f"{theirs}.attention.attention.{part}"
            found |= linear(name, f"{ours}_attention/{part}")
        name = f"{theirs}.attention.output.dense"
        found |= linear(name, f"{ours}_attention/output_projection")
        found |= block(theirs, ours, config)
    found |= norm("layernorm", "final_norm")
    if head and config.distillation_token:
        found |= linear("cls_classifier", "head/logits")
        found |= linear("distillation_classifier", "head_distillation/logits")
    elif head:
        found |= linear("classifier", "head/logits")
    return found


def _vit_block(theirs: str, ours: str, config: ViTConfig) -> Table:
    found = norm(f"{theirs}.layernorm_before", f"{ours}_attention_norm")
    found |= norm(f"{theirs}.layernorm_after", f"{ours}_mlp_norm")
    found |= linear(f"{theirs}.intermediate.dense", f"{ours}_mlp/hidden")
    return found | linear(f"{theirs}.output.dense", f"{ours}_mlp/output_projection")


def _dinov2_block(theirs: str, ours: str, config: ViTConfig) -> Table:
    found = norm(f"{theirs}.norm1", f"{ours}_attention_norm")
    found |= norm(f"{theirs}.norm2", f"{ours}_mlp_norm")
    for number, branch in ((1, "attention"), (2, "mlp")):
        name = f"{theirs}.layer_scale{number}.lambda1"
        found[name] = Entry((f"{ours}_{branch}_scale/gamma",), SAME)
    if config.activation != "swiglu":
        found |= linear(f"{theirs}.mlp.fc1", f"{ours}_mlp/hidden")
        return found | linear(f"{theirs}.mlp.fc2", f"{ours}_mlp/output_projection")
    parts = [f"{ours}_mlp/{part}" for part in ("hidden", "hidden_value")]
    found |= stack(f"{theirs}.mlp.weights_in", parts)
    return found | linear(f"{theirs}.mlp.weights_out", f"{ours}_mlp/output_projection")


HUGGING_FACE = Format(
    name="Hugging Face",
    anchor=f"{_PATCHES}.weight",
    ignored=_IGNORED,
    recognises=_recognises,
    canonical=_canonical,
    fields=_fields,
    classes=_classes,
    positions="embeddings.position_embeddings",
    tokens=("embeddings.cls_token", "embeddings.distillation_token"),
    head=r"(cls_|distillation_)?classifier\..*",
    heads=("classifier", "cls_classifier", "distillation_classifier"),
    optional=r"encoder\.layer\.\d+\.attention\.attention\.(query|key|value)\.bias",
    table=_table,
    position_mode=_position_mode,
    prefixes=("vit.", "deit.", "dinov2.", "dinov2_with_registers."),
)
