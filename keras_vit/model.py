"""build_vit(config) -> keras.Model. Wiring only: blocks own no weights."""

import keras

from keras_vit import layers
from keras_vit.config import ViTConfig


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
