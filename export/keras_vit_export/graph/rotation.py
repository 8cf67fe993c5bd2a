"""Rotations that an inference graph doesn't see: outliers are spread over all channels.

RMSNorm without gamma doesn't know which way the axes of the residual stream point, so
everything may be written turned and read turned back. Pretrained models have a few
channels that are far larger than the others; one scale for all of them leaves the
others few steps. Turned, all are about the same size.

Sources: https://arxiv.org/abs/2404.00456 (QuaRot), section 3;
https://arxiv.org/abs/2405.16406 (SpinQuant), section 3.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from keras_vit_export.graph.inference import Attention, Dense, Graph
from keras_vit_export.graph.rewrites import (
    reads_through_norms,
    with_attention,
    with_readers,
    with_writers,
)

replace = dataclasses.replace


class Rotation(NamedTuple):
    """What of a graph is rotated, by the seed of its rotations; `None` for what isn't."""

    stream: int | None = None
    heads: int | None = None

    def __str__(self) -> str:
        """In words; empty if nothing is rotated."""
        return " and ".join(
            words
            for seed, words in zip(self, ("residual stream", "heads"), strict=True)
            if seed is not None
        )


NONE = Rotation()


def rotate(graph: Graph, rotation: Rotation) -> Graph:
    """The graph with these rotations."""
    if rotation.stream is not None:
        graph = rotate_stream(graph, rotation.stream)
    return graph if rotation.heads is None else rotate_heads(graph, rotation.heads)


def rotate_stream(graph: Graph, seed: int) -> Graph:
    """x R in place of the residual stream x: writers times R, readers times R^T.

    RMSNorm(x R) = RMSNorm(x) R, as R is orthogonal.

    Returns:
        A graph that computes the same; the same object where the stream has a norm with
        gamma, or one that takes the mean out of it: rewrites do both elsewhere.
    """
    if why_not_rotated(graph):
        return graph
    rotation = make_rotation(graph.prefix.shape[1], seed)

    def read(dense: Dense) -> Dense:
        # A layer that reads two tokens side by side reads both turned.
        parts = dense.kernel.reshape(-1, len(rotation), dense.kernel.shape[1])
        return Dense((rotation.T @ parts).reshape(dense.kernel.shape), dense.bias)

    return with_readers(with_writers(graph, lambda it: it @ rotation), read)


def why_not_rotated(graph: Graph) -> str:
    """Why the stream of a graph can't be rotated, in words; empty if it can be."""
    norms = [it.norm for it in (*graph.branches, *graph.heads)]
    if not reads_through_norms(graph):
        return "its pool weighs tokens before their norm"
    if any(norm.gamma is not None or not norm.centred for norm in norms):
        return "its norms take the mean out, or have a gamma"
    if any(branch.scale is not None for branch in graph.branches):
        return "its branches have a LayerScale"
    return ""


def rotate_heads(graph: Graph, seed: int) -> Graph:
    """Values of each head are written turned and read turned by the output's layer.

    Queries and keys are turned alike, which leaves q k^T what it is, unless a norm
    stands between.
    """

    def rotate(layer: Attention) -> Attention:
        heads = layer.num_heads
        values, both = (
            _of_heads(len(layer.output.kernel) // heads, heads, seed + part)
            for part in (0, heads)
        )
        kernel = values.T @ layer.output.kernel
        layer = replace(
            layer,
            value=_times(layer.value, values),
            output=Dense(kernel, layer.output.bias),
        )
        if layer.query is None or layer.query_norm is not None:
            return layer
        query, key = (_times(it, both) for it in (layer.query, layer.key))
        return replace(layer, query=query, key=key)

    return with_attention(graph, rotate)


def _times(dense: Dense, rotation: np.ndarray) -> Dense:
    return Dense(dense.kernel @ rotation, dense.bias @ rotation)


def _of_heads(width: int, heads: int, seed: int) -> np.ndarray:
    """A rotation for each head, along the diagonal: `(heads width, heads width)`."""
    found = np.zeros((heads, width, heads, width))
    for head in range(heads):
        found[head, :, head] = make_rotation(width, seed + head)
    return found.reshape(heads * width, heads * width)


def make_rotation(width: int, seed: int) -> np.ndarray:
    """An orthogonal matrix `(width, width)` that spreads each channel over all.

    Hadamard's, with the signs of its rows by chance, where there is one of this width;
    otherwise any, by chance.
    """
    rng = np.random.default_rng(seed)
    if (hadamard := make_hadamard(width)) is not None:
        return rng.choice((-1.0, 1.0), width)[:, None] * hadamard / np.sqrt(width)
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def make_hadamard(order: int) -> np.ndarray | None:
    """A matrix of ones and minus ones with orthogonal rows, or `None`.

    Of orders 2^k, by Sylvester, and 2^k (q + 1) for primes q = 3 mod 4, by Paley: those
    of usual widths, 192, 384, 768, 1280 and 1408, are among them.
    """
    for doublings in itertools.count():
        size = order >> doublings
        if size << doublings != order or not size:
            return None
        if (found := np.ones((1, 1)) if size == 1 else _paley(size - 1)) is not None:
            for _ in range(doublings):
                found = np.block([[found, found], [found, -found]])
            return found


def _paley(prime: int) -> np.ndarray | None:
    """Paley's first construction: I + S for the skew matrix S of quadratic residues."""
    is_prime = prime > 2 and all(prime % it for it in range(2, int(prime**0.5) + 1))
    if not is_prime or prime % 4 != 3:
        return None
    residues = {it * it % prime for it in range(1, prime)}
    legendre = [0, *(1 if it in residues else -1 for it in range(1, prime))]
    skew = np.ones((prime + 1, prime + 1))
    skew[1:, 0] = -1
    skew[0, 0] = 0
    places = np.arange(prime)
    skew[1:, 1:] = np.array(legendre)[(places[:, None] - places) % prime]
    return np.eye(prime + 1) + skew
