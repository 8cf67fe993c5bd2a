"""Models of random weights in every recipe: tiny ones of every option, and Ti/16.

Their answers are set apart: the last layer is scaled and shifted until each class is some
image's answer. Otherwise all images would get nearly the same one, which a GPU that mixes
up tokens gives as well.
"""

from collections.abc import Iterable

import keras
import numpy as np
from covering import COVERING
from export.test_graph import quickly_quantized
from keras_vit_export.graph import inference
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.rewrites import lift_weights, rewrite
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

import keras_vit

from .material import LIFTED, recipe_of

SHAPE = (8, 12, 3)
# As wide as that, 8 bits round as they do in real models.
_SIZES = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "num_classes": 3}
_GAIN = 1.5  # of random layers, so that attention leaves tokens different
_LARGEST_SCALE = 7.0  # beyond, rounding would be most of what is seen


def make_pixels(count: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Uint8 `(count, *shape)`: a colour of their own, in 2 x 3 patches, with noise."""
    rng = np.random.default_rng(1)
    height, width, _ = shape
    colour = rng.uniform(0, 256, (count, 1, 1, 3))
    contrast = rng.uniform(0, 160, (count, 1, 1, 1))
    patches = rng.uniform(-1, 1, (count, 2, 3, 3))
    patches = patches.repeat(-(-height // 2), 1).repeat(-(-width // 3), 2)
    noise = rng.normal(0, 20, (count, *shape))
    images = colour + contrast * patches[:, :height, :width] + noise
    return images.clip(0, 255).astype("uint8")


def covering_files(index: int, pixels: np.ndarray) -> dict[str, bytes]:
    """The flatbuffer of one of `COVERING`'s configurations in every recipe."""
    fields = _SIZES | {"image_size": SHAPE[:2], "patch_size": 4} | COVERING[index]
    model = _random_model(keras_vit.ViTConfig(**fields), index)
    return _files(model, pixels, (*QUANTIZATION_RECIPES, LIFTED))


def published_files(pixels: np.ndarray, names: Iterable[str]) -> dict[str, bytes]:
    """The flatbuffer of Ti/16 at 224 px in these recipes."""
    config = keras_vit.ViTConfig.from_variant("Ti/16", image_size=224, num_classes=4)
    return _files(_random_model(config, 0), pixels, names)


def _random_model(config: keras_vit.ViTConfig, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = keras_vit.build_vit(config)
    for weight in model.weights:
        if not np.issubdtype(np.dtype(weight.numpy().dtype), np.floating):
            continue
        if len(weight.shape) == 1:  # biases and norms
            weight.assign(weight + rng.normal(0, 0.1, weight.shape))
        else:
            deviation = _GAIN / np.sqrt(np.prod(weight.shape[:-1]))
            weight.assign(rng.normal(0, deviation, weight.shape))
    return model


def _files(model, pixels, names):
    _set_apart(model, pixels)
    graph = rewrite(inference.read(model))
    content, lifted = map(convert_graph, (graph, lift_weights(graph)))
    return {
        name: quickly_quantized(
            lifted if name == LIFTED else content,
            recipe_of(name),
            pixels,
        )
        for name in names
    }


def _set_apart(model: keras.Model, pixels: np.ndarray) -> None:
    rows = model.predict_on_batch(pixels.astype("float32"))
    if np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        rows = np.log(rows)
    rows = rows - rows.mean(axis=1, keepdims=True)
    scale = min(1 / rows.std(axis=0).mean(), _LARGEST_SCALE)
    middle = rows.mean(axis=0)
    for head in (it.logits for it in model.layers if hasattr(it, "logits")):
        head.kernel.assign(scale * head.kernel)
        head.bias.assign(scale * (head.bias - middle))
