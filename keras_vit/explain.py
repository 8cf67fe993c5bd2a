"""What a model's attention looks at: maps of each head, rollout, position similarity.

A map says where a head takes its values from, and no more: values can be small where
weights are large, and what tokens hold is mixed from the second block on.
"""

import pathlib

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_vit.attention import attention_maps, token_groups
from keras_vit.config import ViTConfig
from keras_vit.pictures import save_figure, show_image, show_kept, show_map
from keras_vit.reuse import config_of

__all__ = [
    "attention_maps",
    "draw_attention",
    "draw_position_similarity",
    "patch_maps",
    "position_similarity",
    "rollout",
    "token_groups",
]


def rollout(maps: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """R = A_L ... A_2 A_1 with A_i = (I + mean of the heads of block i) / 2.

    The identity stands for the residual: half of a token comes from itself. Of tokens
    that became one, from all of them alike.

    Args:
        maps: Of `attention_maps`, shape `(b, depth, h, n, n)`.
        groups: Of `token_groups`, shape `(b, depth, n)`; `None` where all blocks read
            all tokens.

    Returns:
        Shape `(b, n, n)`: how much of each input token is in each output token. Every
        row sums to 1.

    Source: https://arxiv.org/abs/2005.00928, section 3 (attention rollout).
    """
    itself = np.eye(maps.shape[-1])
    if groups is not None:
        itself = (groups[..., :, None] == groups[..., None, :]).astype("float64")
        itself /= itself.sum(axis=-1, keepdims=True)  # (b, depth, n, n)
    mixed = (itself + maps.mean(axis=2, dtype="float64")) / 2
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


def _fused_patches(groups: np.ndarray, config: ViTConfig) -> np.ndarray:
    """Which patches each block reads fused into one token.

    Args:
        groups: Of `token_groups`, shape `(..., depth, n)`.
        config: Of the model.

    Returns:
        Shape `(..., depth, rows, columns)` of the grid, booleans.
    """
    # No token has the place -1.
    places = np.full(config.depth, -1)
    for step in config.reductions:
        if step.fuses:
            places[step.block + 1 :] = config.num_prefix_tokens + step.num_kept
    patches = groups[..., config.num_prefix_tokens :]
    fused = patches == places[:, None]
    return fused.reshape(*fused.shape[:-1], *config.grid)


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
    image: np.ndarray,
    maps: np.ndarray,
    config: ViTConfig,
    path: str | pathlib.Path,
    groups: np.ndarray | None = None,
) -> None:
    """The image, the rollout over it, and the map of every head over it.

    Of a model that prunes, also the patches that are left behind each pruning.

    Args:
        image: `(height, width, c)` in 0..255.
        maps: Of this image, shape `(depth, h, n, n)`.
        config: Of the model.
        path: Where the PNG goes.
        groups: Of `token_groups` for this image, shape `(depth, n)`; `None` where all
            blocks read all tokens.
    """
    depth, heads = maps.shape[:2]
    groups = (
        np.tile(np.arange(maps.shape[-1]), (depth, 1)) if groups is None else groups
    )
    prunings = [it for it in config.reductions if it.kind == "prune"]
    columns = max(heads, 2 + len(prunings))
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
    plain, rolled, *left = above.subplots(1, 2 + len(prunings))
    show_image(plain, image)
    plain.set_title("image", fontsize=9)
    all_blocks = patch_maps(rollout(maps[None], groups[None])[0], config)
    show_map(rolled, image, all_blocks, f"rollout, all blocks: {all_blocks.sum():.0%}")
    fused = _fused_patches(groups, config)
    for place, step in zip(left, prunings, strict=True):
        title = f"kept by block {step.block + 1}: {step.num_kept}"
        show_kept(place, image, ~fused[step.block + 1], title)
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
    for place in (plain, rolled, *left, *axes.ravel()):
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
