"""Tokens of two files of one model, matched: each file may keep other patches."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_vit.config import Reduction
from keras_vit_export.graph.fewer_tokens import ORDER
from keras_vit_export.graph.inference import Graph


def order_names(graph: Graph) -> list[str]:
    """Tensors that say which patches were kept."""
    return [f"{it.name}/{ORDER}" for it in graph.prunings]


def shared_tokens(
    graph: Graph,
    name: str,
    exact: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """A residual sum of two files, the tokens that both have, in one order.

    Args:
        graph: Of both, rewritten.
        name: Of the sum: `"block_03_mlp_add"`.
        exact: Tensors of one file by name, the sum `(images, 1, n, d)` and the orders
            `(images, patches)` among them.
        found: Those of the other.

    Returns:
        Two arrays `(tokens of all images, d)`.
    """
    block = int(name.split("_")[1])
    before = [
        it
        for it in graph.reductions
        if it.num_left < it.num_read
        if it.block < block or (it.block == block and "_mlp_" in name)
    ]
    pairs = []
    for image in range(len(exact[name])):
        sides = []
        for tensors in (exact, found):
            rows = tensors[name][image, 0]
            numbers = _numbers(graph, before, tensors, image)
            # What the last block computes is less than what it reads.
            first, _ = graph.read or (0, 0)
            numbers = numbers[first if len(rows) < len(numbers) else 0 :][: len(rows)]
            sides.append((rows, numbers))
        (ours, a), (theirs, b) = sides
        _, left, right = np.intersect1d(a, b, return_indices=True)
        pairs.append((ours[left], theirs[right]))
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))


def _numbers(
    graph: Graph,
    before: Sequence[Reduction],
    tensors: Mapping[str, np.ndarray],
    image: int,
) -> np.ndarray:
    """Which tokens a residual sum of an image holds: patches from 0, the fused one
    behind them, and prefix tokens below 0."""
    patches, fused = np.arange(graph.num_patches), []
    for step in before:
        if step.kind == "pool":
            patches = np.arange(step.num_kept)
        else:
            order = tensors[f"{step.name}/{ORDER}"][image]
            patches = patches[order[: step.num_kept]]
            fused = [graph.num_patches]
    return np.array([*range(-len(graph.prefix), 0), *patches, *fused])
