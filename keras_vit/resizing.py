"""A trained model for images of another size: its positions are resized, once."""

import dataclasses

import keras

from keras_vit.layers import LearnedPositions
from keras_vit.model import build_vit, config_of
from keras_vit.weights.resampling import resize_positions


def with_image_size(
    model: keras.Model,
    image_size: tuple[int, int],
    position_mode: str = "bicubic_antialias",
) -> keras.Model:
    """A new model with all weights of another, for images of another size.

    Patches stay as many pixels wide, so there are more or fewer of them. Learned
    positions of patches are resized as an image is; all other weights are the same.

    Args:
        model: Built by `build_vit`.
        image_size: Height and width in pixels.
        position_mode: As of `resize_positions`.

    Raises:
        ValueError: If another function made the model, or its patches don't divide the
            size.
    """
    config = config_of(model)
    changed = dataclasses.replace(config, image_size=tuple(image_size))
    if changed == config:
        return model
    copy = build_vit(changed)
    for layer in filter(lambda layer: layer.weights, copy.layers):
        weights = model.get_layer(layer.name).get_weights()
        if isinstance(layer, LearnedPositions):
            prefix = config.num_prefix_positions
            patches = resize_positions(
                weights[0][:, prefix:], config.grid, changed.grid, position_mode
            )
            weights[0] = keras.ops.concatenate([weights[0][:, :prefix], patches], 1)
        layer.set_weights(weights)
    return copy
