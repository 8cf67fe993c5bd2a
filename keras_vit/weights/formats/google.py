"""Google's `.npz` files: vision_transformer (AugReg) and big_vision.

Both come down to big_vision's names, which are Flax' parameters joined by "/".

Source: https://github.com/google-research/vision_transformer, `models_vit.py`;
https://github.com/google-research/big_vision, `models/vit.py`.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from keras_vit.config import ViTConfig
from keras_vit.weights.formats.format import Format, Tensors
from keras_vit.weights.formats.layouts import (
    SAME,
    Entry,
    Table,
    depth_of,
    merged_heads,
    rename,
    split_heads,
)

_IGNORED = {
    r"opt/(?!target/).*": "the optimizer's state",
    r"params/(txt/.*|t|b)": "of the text tower",
}
# vision_transformer's numbers count all layers of a block, big_vision's those of a kind.
_RENAMED = {
    r"^Transformer/posembed_input/pos_embedding$": "pos_embedding",
    r"^Transformer/pos_embedding$": "pos_embedding",
    r"/LayerNorm_2/": "/LayerNorm_1/",
    r"/MultiHeadDotProductAttention_1/": "/MultiHeadDotProductAttention_0/",
    r"/MlpBlock_3/": "/MlpBlock_0/",
}
_BLOCK = "Transformer/encoderblock"
_ATTENTION = "MultiHeadDotProductAttention_0"


def _recognises(names: Collection[str]) -> bool:
    return "embedding/kernel" in names and any(it.startswith(_BLOCK) for it in names)


def _canonical(tensors: Tensors) -> dict[str, np.ndarray]:
    """The same under big_vision's names, each block by itself."""
    found = {}
    for name, tensor in rename(tensors, _RENAMED).items():
        parts = {name: tensor}
        if name.startswith(f"{_BLOCK}/"):  # all blocks in one: big_vision's scan
            rest = name.removeprefix(_BLOCK)
            blocks = enumerate(np.atleast_1d(tensor))
            parts = {f"{_BLOCK}_{i}{rest}": part for i, part in blocks}
        if twice := parts.keys() & found.keys():
            raise ValueError(f"{min(twice)!r} is there, and {name!r} holds it too.")
        found |= parts
    return found


def _fields(tensors: Tensors) -> dict[str, Any]:
    patch_size, _, channels, width = tensors["embedding/kernel"].shape
    query = tensors[f"{_BLOCK}_0/{_ATTENTION}/query/kernel"]
    hidden = tensors.get("pre_logits/kernel")
    attentive = "MAPHead_0/probe" in tensors
    has_class_token = "cls" in tensors
    return {
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": depth_of(tensors, rf"{_BLOCK}_(\d+)/"),
        "num_heads": query.shape[1],
        "mlp_dim": tensors[f"{_BLOCK}_0/MlpBlock_0/Dense_0/kernel"].shape[1],
        "activation": "gelu_tanh",
        "norm_epsilon": 1e-6,
        "class_token": has_class_token,
        "pool": "map" if attentive else "token" if has_class_token else "mean",
        "head_hidden": () if hidden is None else (hidden.shape[1],),
        "head_activation": "gelu" if hidden is None else "tanh",
    }


def _classes(tensors: Tensors) -> int | None:
    return tensors["head/kernel"].shape[1] if "head/kernel" in tensors else None


def _preprocessing(tensors: Tensors) -> str:
    # big_vision's models for ImageNet-1k have computed positions; AugReg's have not.
    return "inception" if "pos_embedding" in tensors else "big_vision"


def _table(config: ViTConfig, head: bool) -> Table:
    found = _dense("embedding", "patches/projection")
    if config.class_token:
        found["cls"] = Entry(("prefix_tokens/class_token",), SAME)
    if config.positions == "learned":
        found["pos_embedding"] = Entry(("positions/positions",), SAME)
    for index in range(config.depth):
        theirs, ours = f"{_BLOCK}_{index}", f"block_{index:02d}"
        found |= _norm(f"{theirs}/LayerNorm_0", f"{ours}_attention_norm")
        found |= _attention(f"{theirs}/{_ATTENTION}", f"{ours}_attention", config)
        found |= _norm(f"{theirs}/LayerNorm_1", f"{ours}_mlp_norm")
        found |= _mlp(f"{theirs}/MlpBlock_0", f"{ours}_mlp")
    found |= _norm("Transformer/encoder_norm", "final_norm")
    if config.pool == "map":
        found["MAPHead_0/probe"] = Entry(("pool/probe",), SAME)
        found |= _attention(f"MAPHead_0/{_ATTENTION}", "pool/attention", config)
        found |= _norm("MAPHead_0/LayerNorm_0", "pool/norm")
        found |= _mlp("MAPHead_0/MlpBlock_0", "pool/mlp")
    if head:
        found |= _dense("pre_logits", "head/hidden_0") if config.head_hidden else {}
        found |= _dense("head", "head/logits")
    return found


def _dense(theirs: str, ours: str) -> Table:
    return {
        f"{theirs}/{kind}": Entry((f"{ours}/{kind}",), SAME)
        for kind in ("kernel", "bias")
    }


def _norm(theirs: str, ours: str) -> Table:
    return {
        f"{theirs}/scale": Entry((f"{ours}/gamma",), SAME),
        f"{theirs}/bias": Entry((f"{ours}/beta",), SAME),
    }


def _mlp(theirs: str, ours: str) -> Table:
    first = _dense(f"{theirs}/Dense_0", f"{ours}/hidden")
    return first | _dense(f"{theirs}/Dense_1", f"{ours}/output_projection")


def _attention(theirs: str, ours: str, config: ViTConfig) -> Table:
    apart, together = split_heads(config.num_heads), merged_heads(config.num_heads)
    found = {
        f"{theirs}/{part}/{kind}": Entry((f"{ours}/{part}/{kind}",), apart)
        for part in ("query", "key", "value")
        for kind in ("kernel", "bias")
    }
    out = f"{ours}/output_projection"
    found[f"{theirs}/out/kernel"] = Entry((f"{out}/kernel",), together)
    found[f"{theirs}/out/bias"] = Entry((f"{out}/bias",), SAME)
    return found


GOOGLE = Format(
    name="Google .npz",
    anchor="embedding/kernel",
    ignored=_IGNORED,
    recognises=_recognises,
    canonical=_canonical,
    fields=_fields,
    classes=_classes,
    positions="pos_embedding",
    tokens=("cls",),
    head=r"(head|pre_logits)/.*",
    heads=(),
    table=_table,
    position_mode=lambda names: "linear",
    preprocessing=_preprocessing,
    prefixes=("opt/target/", "params/img/", "params/", "target/"),
    separator="/",
)
