"""What a trained model knows of an image, before it names a class."""

import keras

from keras_vit import layers
from keras_vit.config import check_choice
from keras_vit.reuse import config_of

KINDS = ("token", "mean", "both")


def feature_model(model: keras.Model, kind: str = "both") -> keras.Model:
    """A model from the same images to features, behind the last block and its norm.

    Args:
        model: Built by `build_vit`.
        kind: `"token"` for the class token, `"mean"` for the mean of the patch tokens,
            `"both"` for the one after the other, as DINOv2's linear heads read them.

    Returns:
        A model to float32 features of shape `(b, d)`, or `(b, 2 d)` for both. It shares
        the weights.

    Raises:
        ValueError: If another function made the model, or it has no class token.

    Source: https://arxiv.org/abs/2304.07193, appendix B.3 (linear evaluation).
    """
    check_choice("kind", kind, KINDS)
    config = config_of(model)
    if kind != "mean" and not config.class_token:
        raise ValueError(
            f"The model has no class token, so kind must be 'mean'. Received: {kind!r}"
        )
    tokens = model.get_layer(f"block_{config.depth - 1:02d}_mlp_add").output
    pools = {
        "token": layers.TokenPool(name="class_token"),
        "mean": layers.MeanPool(
            config.num_prefix_tokens, config.fused_share, name="mean_of_patches"
        ),
    }
    chosen = pools.values() if kind == "both" else [pools[kind]]
    norm = model.get_layer("final_norm")
    if config.norm_after_pool:
        found = [norm(pool(tokens)) for pool in chosen]
    else:
        normalized = norm(tokens)
        found = [pool(normalized) for pool in chosen]
    both = keras.layers.Concatenate()(found) if len(found) > 1 else found[0]
    # NumPy can't read the halves that a model of mixed precision gives.
    whole = keras.layers.Activation("linear", dtype="float32")(both)
    return keras.Model(model.input, whole, name="features")
