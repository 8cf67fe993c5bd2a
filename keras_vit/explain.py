"""What a model's attention looks at: maps of each head, rollout, position similarity.

A map says where a head takes its values from, and no more: values can be small where
weights are large, and what tokens hold is mixed from the second block on.
"""

import pathlib

import keras
import numpy as np
from keras_vit_device.pixels import check_pixels
from matplotlib.figure import Figure

from keras_vit.config import ViTConfig
from keras_vit.pictures import save_figure, show_image, show_map
from keras_vit.reuse import config_of


def attention_maps(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """softmax(Q K^T / sqrt(d_k)) of every head in every block.

    Args:
        model: Built by `build_vit`.
        images: `(b, height, width, c)`, pixels in 0..255.

    Returns:
        Shape `(b, depth, h, n, n)`: block, head, query, key. Every row sums to 1. Prefix
        tokens come first, then patches, row by row.

    Raises:
        ValueError: If another function made the model, or images are no pixels in
            0..255.

    Source: https://arxiv.org/abs/1706.03762, equation 1.
    """
    check_pixels(np.asarray(images))
    blocks = [f"block_{index:02d}_attention" for index in range(config_of(model).depth)]
    inputs = [model.get_layer(f"{name}_norm").output for name in blocks]
    found = keras.Model(model.input, inputs)(np.asarray(images), training=False)
    found = keras.tree.flatten(found)  # of one block it is no list
    maps = [
        model.get_layer(name)(tokens, return_weights=True)[1]
        for name, tokens in zip(blocks, found, strict=True)
    ]
    return np.stack([np.asarray(it, "float32") for it in maps], axis=1)


def rollout(maps: np.ndarray) -> np.ndarray:
    """R = A_L ... A_2 A_1 with A_i = (I + mean of the heads of block i) / 2.

    The identity stands for the residual: half of a token comes from itself.

    Args:
        maps: Of `attention_maps`, shape `(b, depth, h, n, n)`.

    Returns:
        Shape `(b, n, n)`: how much of each input token is in each output token. Every
        row sums to 1.

    Source: https://arxiv.org/abs/2005.00928, section 3 (attention rollout).
    """
    mixed = (np.eye(maps.shape[-1]) + maps.mean(axis=2, dtype="float64")) / 2
    product = mixed[:, 0]
    for index in range(1, mixed.shape[1]):
        product = mixed[:, index] @ product
    return product


def patch_maps(maps: np.ndarray, config: ViTConfig) -> np.ndarray:
    """What the class token takes from each patch, where the classifier reads that
    token; else what all patches take, their mean.

    Args:
        maps: Shape `(..., n, n)`, of `attention_maps` or `rollout`.
        config: Of the model.

    Returns:
        Shape `(..., rows, columns)` of the grid. What went to prefix tokens is left out,
        so it sums to at most 1.
    """
    prefix = config.num_prefix_tokens
    rows = (
        maps[..., 0, :]
        if config.pools_class_token
        else maps[..., prefix:, :].mean(axis=-2)
    )
    return rows[..., prefix:].reshape(*rows.shape[:-1], *config.grid)


def position_similarity(model: keras.Model) -> np.ndarray:
    """Cosine of the angle between the positions of every two patches.

    Args:
        model: Built by `build_vit`.

    Returns:
        Shape `(rows, columns, rows, columns)`, in -1..1.

    Raises:
        ValueError: If another function made the model.

    Source: https://arxiv.org/abs/2010.11929, figure 7 (centre).
    """
    config = config_of(model)
    table = np.asarray(model.get_layer("positions").positions, "float64")[0]
    patches = table[config.num_prefix_positions :]
    # A model that was not trained may have a position of zeros, which has no direction.
    length = np.maximum(np.linalg.norm(patches, axis=-1, keepdims=True), 1e-12)
    cosines = (patches / length) @ (patches / length).T
    return cosines.reshape(*config.grid, *config.grid)


def draw_attention(
    image: np.ndarray, maps: np.ndarray, config: ViTConfig, path: str | pathlib.Path
) -> None:
    """The image, the rollout over it, and the map of every head over it.

    Args:
        image: `(height, width, c)` in 0..255.
        maps: Of this image, shape `(depth, h, n, n)`.
        config: Of the model.
        path: Where the PNG goes.
    """
    depth, heads = maps.shape[:2]
    columns = max(heads, 2)
    figure = Figure(
        figsize=(1.35 * columns + 1.0, 1.4 * depth + 3.4), layout="constrained"
    )
    who = (
        "the class token takes"
        if config.pools_class_token
        else "patches take, on average,"
    )
    figure.suptitle(
        f"What {who} from each patch (yellow: most)\n"
        "each map has its own scale; the number is the part that goes to patches",
        fontsize=9,
    )
    above, below = figure.subfigures(2, 1, height_ratios=[2.2, 1.4 * depth])
    plain, rolled = above.subplots(1, 2)
    show_image(plain, image)
    plain.set_title("image", fontsize=9)
    all_blocks = patch_maps(rollout(maps[None])[0], config)
    show_map(rolled, image, all_blocks, f"rollout, all blocks: {all_blocks.sum():.0%}")
    axes = below.subplots(depth, columns, squeeze=False)
    for block, row in enumerate(axes):
        row[0].set_ylabel(f"block {block + 1}", fontsize=8)
        for head, place in enumerate(row[:heads]):
            part = patch_maps(maps[block, head], config)
            title = (
                f"{part.sum():.0%}" if block else f"head {head + 1}\n{part.sum():.0%}"
            )
            show_map(place, image, part, title)
        for place in row[heads:]:
            place.set_axis_off()
    for place in (plain, rolled, *axes.ravel()):
        place.set(xticks=[], yticks=[])
    save_figure(figure, path)


def draw_position_similarity(
    similarity: np.ndarray, path: str | pathlib.Path, most: int = 8
) -> None:
    """A map for each patch: how alike its position is to that of every patch.

    Args:
        similarity: Of `position_similarity`.
        path: Where the PNG goes.
        most: Largest number of patches a side that have a map; of more, some are left
            out evenly.
    """
    rows, columns = (
        np.unique(np.linspace(0, side - 1, min(side, most)).astype(int))
        for side in similarity.shape[:2]
    )
    figure = Figure(
        figsize=(0.8 * len(columns) + 1.4, 0.8 * len(rows) + 1.0), layout="constrained"
    )
    figure.suptitle("How alike the positions of patches are (cosine)", fontsize=9)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for column, place in zip(columns, line, strict=True):
            drawn = place.imshow(
                similarity[row, column], cmap="viridis", vmin=-1, vmax=1
            )
            place.set(xticks=[], yticks=[])
    for row, line in zip(rows, axes, strict=True):
        line[0].set_ylabel(str(row + 1), fontsize=8)
    for column, place in zip(columns, axes[-1], strict=True):
        place.set_xlabel(str(column + 1), fontsize=8)
    figure.supxlabel("column of the patch", fontsize=8)
    figure.supylabel("row of the patch", fontsize=8)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    save_figure(figure, path)
