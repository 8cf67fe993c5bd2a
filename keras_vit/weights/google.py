"""Google's `.npz` files: vision_transformer (AugReg) and big_vision.

Both come down to big_vision's names, which are Flax' parameters joined by "/".

Source: https://github.com/google-research/vision_transformer, `models_vit.py`;
https://github.com/google-research/big_vision, `models/vit.py`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_vit.config import ViTConfig
from keras_vit.weights.layouts import (
    SAME,
    Entry,
    Table,
    depth_of,
    merged_heads,
    renamed,
    split_heads,
)

NAME = "Google .npz"
PREFIXES = ("opt/target/", "params/img/", "params/", "target/")
IGNORED = {
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


def recognises(names: Collection[str]) -> bool:
    """Whether these are such names."""
    return "embedding/kernel" in names and any(it.startswith(_BLOCK) for it in names)


def canonical(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same under big_vision's names, each block by itself."""
    found = {}
    for name, tensor in renamed(tensors, _RENAMED).items():
        if name.startswith(f"{_BLOCK}/"):  # all blocks in one: big_vision's scan
            rest = name.removeprefix(_BLOCK)
            found |= {
                f"{_BLOCK}_{i}{rest}": part
                for i, part in enumerate(np.atleast_1d(tensor))
            }
        else:
            found[name] = tensor
    return found


def fields(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `ViTConfig` that shapes and names tell."""
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


def classes(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Number of classes of the head, or `None` if there is no head."""
    return tensors["head/kernel"].shape[1] if "head/kernel" in tensors else None


def positions(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Name of the tensor of positions."""
    return "pos_embedding" if "pos_embedding" in tensors else None


TOKENS = ("cls",)
HEAD = r"(head|pre_logits)/.*"


def table(config: ViTConfig, head: bool = True) -> Table:
    """Every tensor of such a file, and the weights of the model that it holds."""
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
