"""A scale between each norm and its dense layers, where it makes quantizing kinder."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_vit_export.activations import snr_db
from keras_vit_export.graph.inference import Attention, Branch, Dense, Graph
from keras_vit_export.graph.rewrites import fold_branch_norm

# How much of an outlier goes from the activations into the weights; 0 moves nothing.
STRENGTHS = (0.25, 0.5, 0.75)
# A scale costs one multiplication of all tokens, so it has to gain this much.
LEAST_GAIN_DB = 1.0


def smooth(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    per_token: bool,
    weight_bits: int = 8,
) -> Graph:
    """norm(x) W = (norm(x) / s) (s W), with s chosen for each norm by measured SNR.

    s_c = max|x_c|^a / max|W_c|^(1 - a) over the channels c, for the strength a that
    leaves the least error once both sides are quantized.

    Args:
        graph: Rewritten, so that norms have no gamma.
        inputs: What the dense layers of each branch read, `(rows, d)`, by branch name.
        per_token: Whether each token gets a scale of its own while running, or all
            tokens share one.
        weight_bits: Bits of the weights.

    Returns:
        A graph that computes the same; the same object if no scale pays.

    Source: https://arxiv.org/abs/2211.10438, equation 4 (SmoothQuant).
    """
    branches = tuple(
        _smooth_branch(branch, inputs[branch.name], per_token, weight_bits)
        for branch in graph.branches
    )
    if all(new is old for new, old in zip(branches, graph.branches, strict=True)):
        return graph
    return graph.replace(branches=branches)


def _smooth_branch(branch: Branch, x, per_token, weight_bits) -> Branch:
    weights = np.concatenate([dense.kernel for dense in readers(branch)], axis=1)
    exact = x @ weights

    def snr(scale):
        product = _round_to_grid(
            x / scale, 8, 1 if per_token else None
        ) @ _round_to_grid(weights * scale[:, None], weight_bits, 0)
        return snr_db(exact, product)

    plain = snr(np.ones(x.shape[1]))
    scales = [smoothing_scale(x, weights, strength) for strength in STRENGTHS]
    best = max(scales, key=snr)
    return _apply(branch, best) if snr(best) > plain + LEAST_GAIN_DB else branch


def readers(branch: Branch) -> list[Dense]:
    """The dense layers that read the branch's norm."""
    layer = branch.layer
    if isinstance(layer, Attention):
        found = (layer.query, layer.key, layer.value)
    else:
        found = (layer.hidden, layer.hidden_value)
    return [dense for dense in found if dense is not None]


def smoothing_scale(x: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """s_c = max|x_c|^a / max|W_c|^(1 - a), divided by its geometric mean.

    Args:
        x: What the weights are multiplied with, `(rows, d)`.
        weights: `(d, outputs)`.
        strength: The exponent a, in 0..1.

    Returns:
        Shape `(d,)`. A factor common to all channels would change nothing.

    Source: https://arxiv.org/abs/2211.10438, equation 4.
    """
    largest = np.maximum(np.abs(x).max(axis=0), 1e-5)
    rows = np.maximum(np.abs(weights).max(axis=1), 1e-5)
    scale = largest**strength / rows ** (1 - strength)
    return scale / np.exp(np.log(scale).mean())


def _apply(branch: Branch, scale) -> Branch:
    moved = dataclasses.replace(branch.norm, gamma=scale, beta=np.zeros_like(scale))
    branch = fold_branch_norm(dataclasses.replace(branch, norm=moved))
    norm = dataclasses.replace(branch.norm, gamma=1.0 / scale)
    return dataclasses.replace(branch, norm=norm)


def _round_to_grid(values, bits, axis):
    """Values on a grid of so many bits, one grid for each place along the others."""
    largest = np.abs(values).max(axis=axis, keepdims=axis is not None)
    step = np.maximum(largest, 1e-30) / (2 ** (bits - 1) - 1)
    return np.rint(values / step) * step
