"""build_vit(config) -> keras.Model. Wiring only: blocks own no weights."""

from typing import Any

import keras

from keras_vit import layers
from keras_vit.backend import check_keras
from keras_vit.config import Reduction, ViTConfig

# Which argument of a layer is which field of the configuration: `build_vit` writes it
# there, `reuse.config_of` reads it back. Of blocks, layers are named by their branch.
FIELDS = {
    "scaling": {
        "mean": "mean",
        "std": "std",
        "resize": "resize",
        "interpolation": "interpolation",
        "crop": "crop",
    },
    "stem": {"filters": "stem"},
    "patches": {"width": "width"},
    "prefix_tokens": {
        "class_token": "class_token",
        "distillation_token": "distillation_token",
        "num_registers": "num_registers",
    },
    "patch_dropout": {"rate": "patch_dropout"},
    "attention": {
        "num_heads": "num_heads",
        "qk_norm": "qk_norm",
        "norm_epsilon": "norm_epsilon",
        "dropout": "attention_dropout",
    },
    "mlp": {"mlp_dim": "mlp_dim", "activation": "activation", "dropout": "dropout"},
    "scale": {"initial": "layer_scale"},
    "head": {
        "num_classes": "num_classes",
        "hidden": "head_hidden",
        "activation": "head_activation",
        "dropout": "head_dropout",
        "class_names": "class_names",
    },
}
# Layers whose kind the field of the same name says, and which fields that kind takes.
KINDS = {
    "positions": {
        "learned": (layers.LearnedPositions, ()),
        "sinusoidal_1d": (layers.Sinusoidal1DPositions, ()),
        "sincos_2d": (layers.SinCos2DPositions, ("grid",)),
    },
    "pool": {
        "token": (layers.TokenPool, ()),
        "mean": (layers.MeanPool, ("num_prefix_tokens", "fused_share")),
        "token_and_mean": (
            layers.TokenAndMeanPool,
            ("num_prefix_tokens", "fused_share"),
        ),
        "map": (
            layers.AttentionPool,
            ("num_heads", "mlp_dim", "activation", "norm_epsilon"),
        ),
        "sequence": (layers.SequencePool, ()),
    },
}


def build_vit(config: ViTConfig, name: str | None = None) -> keras.Model:
    """A Vision Transformer as a functional Keras model.

    Args:
        config: Sizes and switches.
        name: Of the model; `"vit"`, `"vit_1"` and so on if `None`, as Keras names
            layers, so that several may be parts of one model.

    Returns:
        A model from pixels in 0..255, shape `(b, height, width, c)`, to logits or
        probabilities, shape `(b, num_classes)`. Every residual sum is a named node, so
        `model.get_layer("block_03_mlp_add").output` are that block's tokens. For a `fit`
        of your own, `compile(..., jit_compile=True)`: on a CPU Keras leaves XLA off, and
        a step takes longer; on several devices XLA fails.

    Source: https://arxiv.org/abs/2010.11929, figure 1 and equations 1 to 4.
    """
    check_keras()
    image = keras.Input((*config.image_size, config.channels), name="image")
    x = embed(image, config)  # (b, n, d)
    for index in range(config.depth):
        x = encoder_block(x, config, index)
    if not config.norm_after_pool:
        x = _norm(config, "final_norm")(x)
    output = classify(x, config)  # (b, num_classes)
    return keras.Model(image, output, name=name or _free_name())


def _free_name() -> str:
    number = keras.backend.get_uid("vit")  # of models built so far, from 1
    return "vit" if number == 1 else f"vit_{number - 1}"


def embed(image, config: ViTConfig):
    """Pixels -> patch tokens with positions, after the prefix tokens."""
    x = layers.PixelScaling(**_fields("scaling", config), name="scaling")(image)
    if config.stem:
        x = layers.ConvStem(**_fields("stem", config), name="stem")(x)
    side = config.patch_size // 2 ** len(config.stem)
    x = layers.PatchEmbedding(
        **_fields("patches", config), patch_size=side, name="patches"
    )(x)
    if config.positions_cover_prefix:
        x = _of_kind("positions", config)(_prepend_tokens(x, config))
    else:
        x = _prepend_tokens(_of_kind("positions", config)(x), config)
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, name="embedding_dropout")(x)
    if config.patch_dropout:
        x = layers.PatchDropout(
            **_fields("patch_dropout", config),
            num_prefix_tokens=config.num_prefix_tokens,
            name="patch_dropout",
        )(x)
    return x


def _fields(layer: str, config: ViTConfig) -> dict[str, Any]:
    """What a layer takes of the configuration."""
    return {name: getattr(config, field) for name, field in FIELDS[layer].items()}


def _of_kind(layer: str, config: ViTConfig) -> keras.Layer:
    """The layer of this name, of the kind that the configuration says."""
    kind, fields = KINDS[layer][getattr(config, layer)]
    return kind(**{name: getattr(config, name) for name in fields}, name=layer)


def encoder_block(x, config: ViTConfig, index: int):
    """x + attention(norm(x)), then x + mlp(norm(x))."""
    name = f"block_{index:02d}"
    attention = layers.MultiHeadAttention(
        **_fields("attention", config), name=f"{name}_attention"
    )
    mlp = layers.FeedForward(**_fields("mlp", config), name=f"{name}_mlp")
    y = queries = _norm(config, f"{attention.name}_norm")(x)
    if index == config.depth - 1 and config.pool == "token":
        first = layers.FirstTokens(1 + config.distillation_token, name="pool_reads")
        x, queries = first(x), first(y)
    step = next((it for it in config.reductions if it.block == index), None)
    prunes = step is not None and step.kind == "prune"
    y = attention(queries, context=y, return_weights=prunes)
    y, weights = y if prunes else (y, None)
    if config.dropout:
        y = keras.layers.Dropout(config.dropout, name=f"{attention.name}_dropout")(y)
    x = _add_branch(x, y, attention.name, config, index)
    if step is not None:
        x = _reduce(x, weights, step, config)
    y = _norm(config, f"{mlp.name}_norm")(x)
    return _add_branch(x, mlp(y), mlp.name, config, index)


def _reduce(x, weights, step: Reduction, config: ViTConfig):
    """Fewer tokens, by the attention weights of all of them or by their places."""
    fields = {"num_prefix_tokens": config.num_prefix_tokens, "name": step.name}
    if step.kind == "pool":
        return layers.PoolTokens(step.grid, step.amount, **fields)(x)
    fields |= {"by_class_token": config.pools_class_token, "fused": step.fused}
    return layers.PruneTokens(step.amount, **fields)(x, weights)


def _add_branch(x, y, name, config: ViTConfig, index: int):
    if config.layer_scale is not None:
        y = layers.LayerScale(**_fields("scale", config), name=f"{name}_scale")(y)
    if config.drop_path:
        # Divided first: the last block's rate is then drop_path to the last bit.
        rate = config.drop_path * (index / (config.depth - 1))
        y = layers.DropPath(rate, name=f"{name}_drop_path")(y)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def classify(x, config: ViTConfig):
    """Tokens -> classes. With a distillation token, the mean of two heads' logits."""
    if not config.distillation_token:
        pooled = _of_kind("pool", config)(x)
        return _head(config, "head", config.head_output)(_after_pool(pooled, config))
    logits = []
    for index, suffix in enumerate(("", "_distillation")):
        token = layers.TokenPool(index, name=f"pool{suffix}")(x)
        token = _after_pool(token, config, suffix)
        logits.append(_head(config, f"head{suffix}", "logits")(token))
    mean = keras.layers.Average(name="mean_of_heads", dtype="float32")(logits)
    if config.head_output == "softmax":
        return keras.layers.Softmax(name="probabilities", dtype="float32")(mean)
    return mean


def _norm(config, name):
    return keras.layers.LayerNormalization(epsilon=config.norm_epsilon, name=name)


def _prepend_tokens(x, config):
    if not config.num_prefix_tokens:
        return x
    fields = _fields("prefix_tokens", config)
    return layers.PrefixTokens(**fields, name="prefix_tokens")(x)


def _after_pool(pooled, config, suffix=""):
    if not config.norm_after_pool:
        return pooled
    return _norm(config, f"final_norm{suffix}")(pooled)


def _head(config, name, head_output):
    return layers.ClassificationHead(
        **_fields("head", config), head_output=head_output, name=name
    )
