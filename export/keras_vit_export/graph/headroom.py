"""Norms whose squares overflow in 16-bit floats get a factor that keeps them small.

x / sqrt(mean(x^2) + epsilon) = (s x) / sqrt(mean((s x)^2) + s^2 epsilon): exact, and one
multiplication more, so only norms that overflow get it. To shrink the whole stream is no
remedy: what is small in it becomes subnormal (39 dB at 2^-4, 28 dB at 2^-6, of 59 to 63
on a pretrained ViT-S).
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from keras_vit_export.gpu.half import Half
from keras_vit_export.gpu.machine import LARGEST
from keras_vit_export.graph.inference import Attention, Branch, Graph, Norm

# Bits that are left above the largest sum of squares, for images that were not seen; of
# two that keep as much of the logits, the first.
MARGINS = (2, 1, 0, 4)


def _sums_that_overflow(half: Half) -> dict[str, float]:
    """Largest sum of squares of each norm whose sum is no 16-bit float, by its name."""
    return {
        name.rpartition("/")[0]: total
        for name, total in half.sums.items()
        if total > LARGEST
    }


def give_headroom(graph: Graph, half: Half, examine: Callable[[Graph], Half]) -> Graph:
    """The graph whose norms do not overflow, by the margin that keeps most of the logits.

    Args:
        graph: Rewritten.
        half: What 16-bit floats make of it.
        examine: The same of another graph.

    Returns:
        A graph that computes the same; the same object where no norm overflows, or
        where nothing helps.
    """
    sums = _sums_that_overflow(half)
    if not sums:
        return graph
    candidates = [shrink_norms(graph, _factors(sums, bits)) for bits in MARGINS]
    scores = [examine(it).snr_of_short_sums_db for it in candidates]
    best = int(np.argmax(scores))
    return candidates[best] if scores[best] >= half.snr_of_short_sums_db else graph


def _factors(sums: Mapping[str, float], bits: int) -> dict[str, float]:
    """Powers of two, which change no digit of x."""
    return {
        name: float(2.0 ** -np.ceil((np.log2(total / LARGEST) + bits) / 2))
        for name, total in sums.items()
    }


def shrunk_norms(graph: Graph) -> dict[str, float]:
    """The factor of each norm that has one, by its name."""
    factors = {}

    def note(name: str, norm: Norm) -> Norm:
        if norm.shrink != 1.0:
            factors[name] = norm.shrink
        return norm

    _with_norms(graph, note)
    return factors


def shrink_norms(graph: Graph, factors: Mapping[str, float]) -> Graph:
    """The graph with these factors, by names of norms: `"block_00_mlp_norm"`."""

    def shrink(name: str, norm: Norm) -> Norm:
        return dataclasses.replace(norm, shrink=factors.get(name, norm.shrink))

    return _with_norms(graph, shrink)


def _with_norms(graph: Graph, change: Callable[[str, Norm], Norm]) -> Graph:
    """The graph with each norm changed, which is named as its operations are."""

    def norm(name: str, it: Norm | None) -> Norm | None:
        return None if it is None else change(name, it)

    def attention(name: str, layer: Attention) -> Attention:
        return dataclasses.replace(
            layer,
            query_norm=norm(f"{name}_query_norm", layer.query_norm),
            key_norm=norm(f"{name}_key_norm", layer.key_norm),
        )

    def branch(it: Branch) -> Branch:
        layer = it.layer
        if isinstance(layer, Attention):
            layer = attention(it.name, layer)
        return dataclasses.replace(
            it, norm=change(f"{it.name}_norm", it.norm), layer=layer
        )

    pool = dataclasses.replace(graph.pool, norm=norm("pool_norm", graph.pool.norm))
    if pool.attention is not None:
        pool = dataclasses.replace(
            pool, attention=attention("pool_attention", pool.attention)
        )
    heads = (
        dataclasses.replace(head, norm=change(f"final_norm{suffix}", head.norm))
        for head, suffix in zip(graph.heads, ("", "_distillation"), strict=False)
    )
    return graph.replace(
        branches=tuple(map(branch, graph.branches)), pool=pool, heads=tuple(heads)
    )
