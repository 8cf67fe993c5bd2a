"""A Vision Transformer in NumPy from the papers, and its weights in every dialect.

Nothing here is the library's: the weights are random, under timm's names; `forward` is
the papers' formulas in float64; each writer packs the same weights as the code that
it names packs them.
"""

import dataclasses
import json
import math
import struct
import zipfile

import numpy as np
from safetensors.numpy import save_file

_erf = np.vectorize(math.erf)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes and switches of the random model."""

    width: int = 12
    depth: int = 2
    num_heads: int = 3
    mlp_dim: int = 20
    patch: int = 4
    grid: tuple[int, int] = (2, 2)
    classes: int = 5
    distilled: bool = False
    registers: int = 0
    class_token: bool = True
    embed_class: bool = True  # positions for the class token too
    qk_norm: bool = False
    layer_scale: bool = False
    swiglu: bool = False
    averaged: bool = False  # fc_norm
    mean: bool = False  # of the patches, behind the norm
    both: bool = False  # class token and mean of the patches
    attentive: bool = False  # MAP head
    covered: bool = False  # positions for the registers too
    sincos: bool = False  # no positions in the file
    head: bool = True
    tanh: bool = False  # GELU's approximation
    epsilon: float = 1e-6


def weights(rng, size: Size) -> dict[str, np.ndarray]:
    """Random float32 weights under timm's names."""
    d, m, e = size.width, size.mlp_dim, size.width // size.num_heads
    rows = math.prod(size.grid) + size.embed_class * (size.class_token + size.distilled)
    rows += size.covered * size.registers
    shapes = {
        "patch_embed.proj.weight": (d, 3, size.patch, size.patch),
        "patch_embed.proj.bias": (d,),
        "pos_embed": (1, rows, d),
    }
    if size.class_token:
        shapes["cls_token"] = (1, 1, d)
    if size.distilled:
        shapes["dist_token"] = (1, 1, d)
    if size.registers:
        shapes["reg_token"] = (1, size.registers, d)
    for i in range(size.depth):
        shapes |= {
            f"blocks.{i}.attn.qkv.weight": (3 * d, d),
            f"blocks.{i}.attn.qkv.bias": (3 * d,),
            f"blocks.{i}.attn.proj.weight": (d, d),
            f"blocks.{i}.attn.proj.bias": (d,),
            f"blocks.{i}.mlp.fc1.weight": (m * (1 + size.swiglu), d),
            f"blocks.{i}.mlp.fc1.bias": (m * (1 + size.swiglu),),
            f"blocks.{i}.mlp.fc2.weight": (d, m),
            f"blocks.{i}.mlp.fc2.bias": (d,),
        }
        norms = {"norm1": d, "norm2": d}
        if size.qk_norm:
            norms |= {"attn.q_norm": e, "attn.k_norm": e}
        for name, width in norms.items():
            shapes[f"blocks.{i}.{name}.weight"] = (width,)
            shapes[f"blocks.{i}.{name}.bias"] = (width,)
        if size.layer_scale:
            shapes |= {f"blocks.{i}.ls{k}.gamma": (d,) for k in (1, 2)}
    final = "fc_norm" if size.averaged else "norm"
    shapes |= {f"{final}.weight": (d,), f"{final}.bias": (d,)}
    if size.attentive:
        shapes |= {
            "map.probe": (1, 1, d),
            "map.attn.qkv.weight": (3 * d, d),
            "map.attn.qkv.bias": (3 * d,),
            "map.attn.proj.weight": (d, d),
            "map.attn.proj.bias": (d,),
            "map.norm.weight": (d,),
            "map.norm.bias": (d,),
            "map.mlp.fc1.weight": (m, d),
            "map.mlp.fc1.bias": (m,),
            "map.mlp.fc2.weight": (d, m),
            "map.mlp.fc2.bias": (d,),
        }
    for name in ("head", "head_dist") if size.distilled else ("head",):
        if size.head:
            shapes[f"{name}.weight"] = (size.classes, d * (1 + size.both))
            shapes[f"{name}.bias"] = (size.classes,)
    return {
        name: rng.normal(0.0, 0.4, shape).astype("float32")
        for name, shape in shapes.items()
    }


def forward(w: dict[str, np.ndarray], size: Size, images: np.ndarray) -> np.ndarray:
    """Scaled images `(b, height, width, 3)` -> logits, float64."""
    w = {name: tensor.astype("float64") for name, tensor in w.items()}
    b, d, p = len(images), size.width, size.patch
    rows, columns = images.shape[1] // p, images.shape[2] // p
    patches = images.reshape(b, rows, p, columns, p, 3).transpose(0, 1, 3, 5, 2, 4)
    kernel = w["patch_embed.proj.weight"].reshape(d, -1)
    x = patches.reshape(b, rows * columns, -1) @ kernel.T + w["patch_embed.proj.bias"]
    tokens = [w[name] for name in ("cls_token", "dist_token") if name in w]
    registers = [w["reg_token"]] if size.registers else []
    prefix = [np.repeat(token, b, 0) for token in tokens]
    if size.covered:
        prefix_and_registers = [*prefix, *(np.repeat(it, b, 0) for it in registers)]
        x = np.concatenate([*prefix_and_registers, x], 1) + w["pos_embed"]
    elif size.embed_class:
        x = np.concatenate([*prefix, x], 1) + w["pos_embed"]
        place = len(prefix)
        repeated = [np.repeat(it, b, 0) for it in registers]
        x = np.concatenate([x[:, :place], *repeated, x[:, place:]], 1)
    else:
        repeated = [np.repeat(it, b, 0) for it in registers]
        x = np.concatenate([*prefix, *repeated, x + w["pos_embed"]], 1)
    for i in range(size.depth):
        y = _norm(w, f"blocks.{i}.norm1", x, size)
        y = _attention(w, f"blocks.{i}.attn", y, size)
        x = x + y * w.get(f"blocks.{i}.ls1.gamma", 1.0)
        y = _mlp(w, f"blocks.{i}.mlp", _norm(w, f"blocks.{i}.norm2", x, size), size)
        x = x + y * w.get(f"blocks.{i}.ls2.gamma", 1.0)
    if size.averaged:
        x = x[:, len(prefix) + size.registers :].mean(1)
        return _linear(w, "head", _norm(w, "fc_norm", x, size))
    x = _norm(w, "norm", x, size)
    if size.attentive:
        y = _attention(w, "map.attn", np.repeat(w["map.probe"], b, 0), size, x)
        y = y + _mlp(w, "map.mlp", _norm(w, "map.norm", y, size), size)
        return _linear(w, "head", y[:, 0])
    mean = x[:, len(prefix) + size.registers :].mean(1)
    if size.both:
        return _linear(w, "head", np.concatenate([x[:, 0], mean], -1))
    if size.mean or not size.class_token:
        return _linear(w, "head", mean)
    logits = _linear(w, "head", x[:, 0])
    if size.distilled:
        logits = (logits + _linear(w, "head_dist", x[:, 1])) / 2
    return logits


def _linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w, name, x, size):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + size.epsilon)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _attention(w, name, x, size, context=None):
    """Queries of x; keys and values of the context, x itself if `None`."""
    b, n, d = x.shape
    qkv = [
        _linear(w, f"{name}.qkv", it).reshape(
            b, -1, 3, size.num_heads, d // size.num_heads
        )
        for it in (x, x if context is None else context)
    ]
    q = qkv[0].transpose(2, 0, 3, 1, 4)[0]
    _, k, v = qkv[1].transpose(2, 0, 3, 1, 4)
    if size.qk_norm:
        q, k = (
            _norm(w, f"{name}.{it}_norm", part, size)
            for it, part in (("q", q), ("k", k))
        )
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(d // size.num_heads))
    mixed = scores / scores.sum(-1, keepdims=True) @ v
    return _linear(w, f"{name}.proj", mixed.transpose(0, 2, 1, 3).reshape(b, n, d))


def _mlp(w, name, x, size):
    x = _linear(w, f"{name}.fc1", x)
    if size.swiglu:
        gate, value = np.split(x, 2, axis=-1)
        x = gate / (1 + np.exp(-gate)) * value
    elif size.tanh:
        x = x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    else:
        x = x * (1 + _erf(x / math.sqrt(2))) / 2
    return _linear(w, f"{name}.fc2", x)


def google(w, size: Size, dialect: str) -> dict[str, np.ndarray]:
    """As `"vit_jax"` (AugReg), `"big_vision"` or its `"scan"` write them."""
    d, h = size.width, size.num_heads
    old = dialect == "vit_jax"
    attention = f"MultiHeadDotProductAttention_{int(old)}"
    second, mlp = (
        ("LayerNorm_2", "MlpBlock_3") if old else ("LayerNorm_1", "MlpBlock_0")
    )
    found = {
        "embedding/kernel": w["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": w["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": w["norm.weight"],
        "Transformer/encoder_norm/bias": w["norm.bias"],
    }
    place = "Transformer/posembed_input/pos_embedding" if old else "pos_embedding"
    if not size.sincos:
        found[place] = w["pos_embed"]
    if size.class_token:
        found["cls"] = w["cls_token"]
    if size.head:
        found |= {"head/kernel": w["head.weight"].T, "head/bias": w["head.bias"]}

    def packed(start, attention, norms, mlp):
        """Attention, norms and feed-forward of a block, or of the MAP head."""
        it = {key.removeprefix(start): t for key, t in w.items()}
        block = {}
        for name, part, bias in zip(
            ("query", "key", "value"),
            np.split(it["attn.qkv.weight"], 3),
            np.split(it["attn.qkv.bias"], 3),
            strict=True,
        ):
            block[f"{attention}/{name}/kernel"] = part.T.reshape(d, h, d // h)
            block[f"{attention}/{name}/bias"] = bias.reshape(h, d // h)
        out = it["attn.proj.weight"].T.reshape(h, d // h, d)
        block |= {
            f"{attention}/out/kernel": out,
            f"{attention}/out/bias": it["attn.proj.bias"],
            f"{mlp}/Dense_0/kernel": it["mlp.fc1.weight"].T,
            f"{mlp}/Dense_0/bias": it["mlp.fc1.bias"],
            f"{mlp}/Dense_1/kernel": it["mlp.fc2.weight"].T,
            f"{mlp}/Dense_1/bias": it["mlp.fc2.bias"],
        }
        for theirs, norm in norms.items():
            block[f"{norm}/scale"] = it[f"{theirs}.weight"]
            block[f"{norm}/bias"] = it[f"{theirs}.bias"]
        return block

    norms = {"norm1": "LayerNorm_0", "norm2": second}
    blocks = [packed(f"blocks.{i}.", attention, norms, mlp) for i in range(size.depth)]
    if size.attentive:
        head = packed("map.", attention, {"norm": "LayerNorm_0"}, mlp)
        found |= {f"MAPHead_0/{key}": it for key, it in head.items()}
        found["MAPHead_0/probe"] = w["map.probe"]
    if dialect == "scan":
        stacked = {key: np.stack([it[key] for it in blocks]) for key in blocks[0]}
        return found | {f"Transformer/encoderblock/{k}": t for k, t in stacked.items()}
    for i, block in enumerate(blocks):
        found |= {f"Transformer/encoderblock_{i}/{k}": t for k, t in block.items()}
    return found


def hugging_face(w, size: Size, version: int = 4, kind: str = "vit"):
    """As transformers' ViT, DeiT (kind "deit") or DINOv2 (kind "dinov2") save them."""
    dinov2 = kind == "dinov2"
    pre = f"{kind}."
    found = {
        f"{pre}embeddings.cls_token": w["cls_token"],
        f"{pre}embeddings.position_embeddings": w["pos_embed"],
        f"{pre}embeddings.patch_embeddings.projection.weight": w[
            "patch_embed.proj.weight"
        ],
        f"{pre}embeddings.patch_embeddings.projection.bias": w["patch_embed.proj.bias"],
        f"{pre}layernorm.weight": w["norm.weight"],
        f"{pre}layernorm.bias": w["norm.bias"],
    }
    if size.registers:
        found[f"{pre}embeddings.register_tokens"] = w["reg_token"]
    if dinov2:
        found[f"{pre}embeddings.mask_token"] = np.zeros((1, size.width), "float32")
    if size.distilled:
        found[f"{pre}embeddings.distillation_token"] = w["dist_token"]
    heads = {"head": "classifier"}
    if size.distilled:
        heads = {"head": "cls_classifier", "head_dist": "distillation_classifier"}
    for theirs, name in heads.items() if size.head else ():
        found[f"{name}.weight"] = w[f"{theirs}.weight"]
        found[f"{name}.bias"] = w[f"{theirs}.bias"]
    attention = [f"attention.attention.{it}" for it in ("query", "key", "value")]
    names = {
        "norm1": "norm1" if dinov2 else "layernorm_before",
        "norm2": "norm2" if dinov2 else "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1" if dinov2 else "intermediate.dense",
        "mlp.fc2": "mlp.fc2" if dinov2 else "output.dense",
    }
    if size.swiglu:
        names |= {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
    layer = "encoder.layer"
    if version == 5:
        layer = "layers"
        attention = [f"attention.{it}_proj" for it in "qkv"]
        names |= {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1"}
        names["mlp.fc2"] = "mlp.fc2"
    for i in range(size.depth):
        start = f"{pre}{layer}.{i}"
        for kind_ in ("weight", "bias"):
            packed = w[f"blocks.{i}.attn.qkv.{kind_}"]
            for name, part in zip(attention, np.split(packed, 3), strict=True):
                found[f"{start}.{name}.{kind_}"] = part
            for theirs, name in names.items():
                found[f"{start}.{name}.{kind_}"] = w[f"blocks.{i}.{theirs}.{kind_}"]
        if dinov2:
            for k in (1, 2):
                found[f"{start}.layer_scale{k}.lambda1"] = w[f"blocks.{i}.ls{k}.gamma"]
    return found


def write_npz(path, arrays) -> None:
    """As `np.savez`; bfloat16 as big_vision stores it."""
    np.savez(path, **arrays)


def write_safetensors(path, arrays, metadata=None) -> None:
    """Contiguous, as the library wants them."""
    arrays = {name: np.ascontiguousarray(it) for name, it in arrays.items()}
    save_file(arrays, path, metadata)


def safetensors_bytes(arrays, metadata=None, length=0) -> bytes:
    """A file of the format, by its description alone; also of bfloat16.

    Its header is padded to `length` bytes with spaces, as the format allows.
    """
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32"}
    header, place = {"__metadata__": metadata} if metadata else {}, 0
    for name, it in arrays.items():
        header[name] = {
            "dtype": kinds[it.dtype.name],
            "shape": list(it.shape),
            "data_offsets": [place, place + it.nbytes],
        }
        place += it.nbytes
    text = json.dumps(header).encode().ljust(length)
    parts = [np.ascontiguousarray(it).tobytes() for it in arrays.values()]
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def write_hugging_face(folder, arrays, size: Size, **config) -> None:
    """A folder as the hub holds it."""
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", arrays)
    side = size.grid[0] * size.patch
    config = {
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.num_heads,
        "intermediate_size": size.mlp_dim,
        "patch_size": size.patch,
        "image_size": side,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": size.epsilon,
        "id2label": {str(i): f"class {i}" for i in range(size.classes)},
        **config,
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def zipped(path, members: dict[str, bytes]) -> None:
    """A ZIP archive of these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def assert_gives(model, w, size, rng, mean=MEAN, std=STD, bound=1e-5):
    """The model's logits are the formulas'; the bound is relative to the largest."""
    shape = (3, *(side * size.patch for side in size.grid), 3)
    pixels = rng.integers(0, 256, shape).astype("float32")
    expected = forward(w, size, (pixels / 255.0 - mean) / std)
    got = np.asarray(model(pixels))
    assert np.abs(got - expected).max() <= bound * np.abs(expected).max()
