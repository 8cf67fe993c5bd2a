"""What attention reads: the weights of every block, and which tokens stand for which."""

from collections.abc import Iterator

import keras
import numpy as np
from keras_vit_device.pixels import check_pixels

from keras_vit.config import Reduction
from keras_vit.reuse import config_of


def attention_maps(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """softmax(Q K^T / sqrt(d_k)) of every head in every block.

    Args:
        model: Built by `build_vit`.
        images: `(b, height, width, c)`, pixels in 0..255.

    Returns:
        Shape `(b, depth, h, n, n)`: block, head, query, key. Every row sums to 1. Prefix
        tokens come first, then patches, row by row. In blocks that read fewer tokens,
        those that became one have its row, and equal parts of its column.

    Raises:
        ValueError: If another function made the model, or images are no pixels in
            0..255.

    Source: https://arxiv.org/abs/1706.03762, equation 1.
    """
    weights = _weights(model, images)
    groups = _groups(model, weights)  # (b, depth, n)
    spread = [_spread(it, groups[:, block]) for block, it in enumerate(weights)]
    return np.stack(spread, axis=1)


def token_groups(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Which token of a block's attention each prefix token and patch is a part of.

    Args:
        model: As of `attention_maps`.
        images: As there.

    Returns:
        Shape `(b, depth, n)`, integers: places in what that block's attention reads.
        Without `reduce_tokens` 0 to n - 1 in all blocks.

    Raises:
        ValueError: As there.
    """
    return _groups(model, _weights(model, images))


def score_gaps(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """How far the choice of tokens is from a tie: of nearly equal scores, rounding
    decides which patch is kept, and another runtime may keep the other.

    Args:
        model: As of `attention_maps`.
        images: As there.

    Returns:
        Shape `(b,)`: the smallest difference between the last kept and the first fused
        patch's score, as a part of the former; infinite where nothing is pruned.
    """
    weights = _weights(model, images)
    gaps = np.full(len(images), np.inf)
    for step, layer in _prunings(model):
        patches = slice(layer.num_prefix_tokens, layer.num_prefix_tokens + step.patches)
        scores = np.sort(np.asarray(layer.scores(weights[step.block]))[:, patches])
        last, first = scores[:, -step.num_kept], scores[:, -step.num_kept - 1]
        gaps = np.minimum(gaps, (last - first) / np.maximum(last, 1e-30))
    return gaps


def _weights(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Attention weights of each block, `(b, h, n, n)` of the tokens that it reads."""
    check_pixels(np.asarray(images))
    blocks = [f"block_{index:02d}_attention" for index in range(config_of(model).depth)]
    inputs = [model.get_layer(f"{name}_norm").output for name in blocks]
    found = keras.Model(model.input, inputs)(np.asarray(images), training=False)
    found = keras.tree.flatten(found)  # of one block it is no list
    maps = (
        model.get_layer(name)(tokens, return_weights=True)[1]
        for name, tokens in zip(blocks, found, strict=True)
    )
    return [np.asarray(it, "float32") for it in maps]


def _prunings(model: keras.Model) -> Iterator[tuple[Reduction, keras.Layer]]:
    for step in config_of(model).reductions:
        if step.prunes:
            yield step, model.get_layer(step.name)


def _groups(model: keras.Model, weights: list[np.ndarray]) -> np.ndarray:
    batch, _, count, _ = weights[0].shape
    groups = np.tile(np.arange(count), (batch, 1))
    steps = {it.block: it for it in config_of(model).reductions}
    found = []
    for block, given in enumerate(weights):
        found.append(groups)
        if block in steps:
            step = steps[block]
            layer = model.get_layer(step.name)
            places = _places(step, layer, given)  # (b, tokens of this block)
            groups = np.take_along_axis(places, groups, axis=1)
    return np.stack(found, axis=1)


def _places(step: Reduction, layer: keras.Layer, weights: np.ndarray) -> np.ndarray:
    """Where each token of a block goes, `(b, n)`."""
    first, (batch, _, count, _) = layer.num_prefix_tokens, weights.shape
    places = np.tile(np.arange(count), (batch, 1))
    if step.amount == 1.0:
        return places
    if step.kind == "pool":
        rows, columns = np.indices(step.grid) // step.amount
        squares = rows * (step.grid[1] // step.amount) + columns
        places[:, first:] = first + squares.ravel()
        return places
    order = np.asarray(layer.order(weights))
    places[:, first:] = first + step.num_kept  # fused, or so before
    kept = first + np.minimum(np.arange(step.patches), step.num_kept)
    np.put_along_axis(places, first + order, kept[None], axis=1)
    return places


def _spread(weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weights `(b, h, m, m)` of the tokens left, as `(b, h, n, n)` of all."""
    rows = [
        whole[:, group][:, :, group] / np.bincount(group)[group]
        for whole, group in zip(weights, groups, strict=True)
    ]
    return np.stack(rows)
