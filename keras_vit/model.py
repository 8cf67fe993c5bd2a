"""build_vit(config) -> keras.Model. Wiring only: blocks own no weights."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_vit import layers
from keras_vit.config import ViTConfig

# Of red, green and blue in luma: what Pillow and MediaPipe make grey of.
_LUMA = (0.299, 0.587, 0.114)


def build_vit(config: ViTConfig, name: str | None = None) -> keras.Model:
    """A Vision Transformer as a functional Keras model.

    Args:
        config: Sizes and switches.
        name: Of the model; `"vit"`, `"vit_1"` and so on if `None`, as Keras names
            layers, so that several may be parts of one model.

    Returns:
        A model from pixels in 0..255, shape `(b, height, width, c)`, to logits or
        probabilities, shape `(b, num_classes)`. Every residual sum is a named node, so
        `model.get_layer("block_03_mlp_add").output` are that block's tokens.

    Source: https://arxiv.org/abs/2010.11929, figure 1 and equations 1 to 4.
    """
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
    x = layers.PixelScaling(
        config.mean,
        config.std,
        resize=config.resize,
        interpolation=config.interpolation,
        crop=config.crop,
        name="scaling",
    )(image)
    if config.stem:
        x = layers.ConvStem(config.stem, name="stem")(x)
    pixels_per_patch = config.patch_size // 2 ** len(config.stem)
    x = layers.PatchEmbedding(config.width, pixels_per_patch, name="patches")(x)
    if config.positions_cover_prefix:
        x = _positions(config)(_prepend_tokens(x, config))
    else:
        x = _prepend_tokens(_positions(config)(x), config)
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, name="embedding_dropout")(x)
    if config.patch_dropout:
        x = layers.PatchDropout(
            config.patch_dropout, config.num_prefix_tokens, name="patch_dropout"
        )(x)
    return x


def encoder_block(x, config: ViTConfig, index: int):
    """x + attention(norm(x)), then x + mlp(norm(x))."""
    name = f"block_{index:02d}"
    attention = layers.MultiHeadAttention(
        config.num_heads,
        qk_norm=config.qk_norm,
        norm_epsilon=config.norm_epsilon,
        dropout=config.attention_dropout,
        name=f"{name}_attention",
    )
    mlp = layers.FeedForward(
        config.mlp_dim, config.activation, config.dropout, name=f"{name}_mlp"
    )
    y = queries = _norm(config, f"{attention.name}_norm")(x)
    if index == config.depth - 1 and config.pool == "token":
        first = layers.FirstTokens(1 + config.distillation_token, name="pool_reads")
        x, queries = first(x), first(y)
    y = attention(queries, context=y)
    if config.dropout:
        y = keras.layers.Dropout(config.dropout, name=f"{attention.name}_dropout")(y)
    x = _add_branch(x, y, attention.name, config, index)
    y = _norm(config, f"{mlp.name}_norm")(x)
    return _add_branch(x, mlp(y), mlp.name, config, index)


def _add_branch(x, y, name, config: ViTConfig, index: int):
    if config.layer_scale is not None:
        y = layers.LayerScale(config.layer_scale, name=f"{name}_scale")(y)
    if config.drop_path:
        # Divided first: the last block's rate is then drop_path to the last bit.
        rate = config.drop_path * (index / (config.depth - 1))
        y = layers.DropPath(rate, name=f"{name}_drop_path")(y)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def classify(x, config: ViTConfig):
    """Tokens -> classes. With a distillation token, the mean of two heads' logits."""
    if not config.distillation_token:
        pooled = _pool(config)(x)
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


def _positions(config):
    if config.positions == "sincos_2d":
        return layers.SinCos2DPositions(config.grid, name="positions")
    kinds = {
        "learned": layers.LearnedPositions,
        "sinusoidal_1d": layers.Sinusoidal1DPositions,
    }
    return kinds[config.positions](name="positions")


def _prepend_tokens(x, config):
    if not config.num_prefix_tokens:
        return x
    return layers.PrefixTokens(
        config.class_token,
        config.distillation_token,
        config.num_registers,
        name="prefix_tokens",
    )(x)


def _pool(config):
    if config.pool == "token":
        return layers.TokenPool(name="pool")
    if config.pool == "mean":
        return layers.MeanPool(config.num_prefix_tokens, name="pool")
    if config.pool == "token_and_mean":
        return layers.TokenAndMeanPool(config.num_prefix_tokens, name="pool")
    if config.pool == "sequence":
        return layers.SequencePool(name="pool")
    return layers.AttentionPool(
        config.num_heads,
        config.mlp_dim,
        config.activation,
        config.norm_epsilon,
        name="pool",
    )


def _after_pool(pooled, config, suffix=""):
    if not config.norm_after_pool:
        return pooled
    return _norm(config, f"final_norm{suffix}")(pooled)


def _head(config, name, head_output):
    return layers.ClassificationHead(
        config.num_classes,
        hidden=config.head_hidden,
        activation=config.head_activation,
        dropout=config.head_dropout,
        head_output=head_output,
        class_names=config.class_names,
        name=name,
    )


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
        return ViTConfig(**_embedding_fields(model, found), **_block_fields(found))
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


def _embedding_fields(model, found):
    _, height, width, channels = model.input_shape
    scaling, patches = found["scaling"], found["patches"]
    stem = found["stem"].filters if "stem" in found else ()
    kinds = {
        layers.LearnedPositions: "learned",
        layers.Sinusoidal1DPositions: "sinusoidal_1d",
        layers.SinCos2DPositions: "sincos_2d",
    }
    fields = {"class_token": False, "distillation_token": False, "num_registers": 0}
    if "prefix_tokens" in found:
        fields = {name: getattr(found["prefix_tokens"], name) for name in fields}
    order = list(found)
    covers = "prefix_tokens" in found and (
        order.index("prefix_tokens") < order.index("positions")
    )
    dropped = found.get("patch_dropout")
    return fields | {
        "image_size": (height, width),
        "channels": channels,
        "resize": scaling.resize,
        "interpolation": scaling.interpolation,
        "crop": scaling.crop,
        "mean": scaling.mean,
        "std": scaling.std,
        "stem": stem,
        "patch_size": patches.patch_size * 2 ** len(stem),
        "width": patches.width,
        "positions": kinds[type(found["positions"])],
        "positions_cover_prefix": covers,
        "patch_dropout": dropped.rate if dropped else 0.0,
    }


def _block_fields(found):
    attention, mlp, head = (
        found[name] for name in ("block_00_attention", "block_00_mlp", "head")
    )
    depth = sum(name.endswith("_mlp_add") for name in found)
    scale = found.get("block_00_mlp_scale")
    drop_path = found.get(f"block_{depth - 1:02d}_mlp_drop_path")
    pools = {
        layers.TokenPool: "token",
        layers.MeanPool: "mean",
        layers.TokenAndMeanPool: "token_and_mean",
        layers.AttentionPool: "map",
        layers.SequencePool: "sequence",
    }
    order = list(found)
    softmax = head.head_output == "softmax" or "probabilities" in found
    return {
        "depth": depth,
        "num_heads": attention.num_heads,
        "qk_norm": attention.qk_norm,
        "norm_epsilon": attention.norm_epsilon,
        "attention_dropout": attention.dropout,
        "mlp_dim": mlp.mlp_dim,
        "activation": mlp.activation,
        "dropout": mlp.dropout,
        "layer_scale": scale.initial if scale else None,
        "drop_path": drop_path.rate if drop_path else 0.0,
        "pool": pools[type(found["pool"])],
        "norm_after_pool": order.index("final_norm") > order.index("pool"),
        "num_classes": head.num_classes,
        "head_hidden": head.hidden,
        "head_activation": head.activation,
        "head_dropout": head.dropout,
        "head_output": "softmax" if softmax else "logits",
        "class_names": head.class_names,
    }
