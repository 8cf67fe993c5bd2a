"""Weights rounded one input after the other, what each loses made up for by the next.

To the nearest, every weight errs by itself. But inputs vary together, so that what one
weight's rounding changes another's can take back.

litert-quantizer has this algorithm too, and takes the inverse of the whole covariance
where that of the inputs not yet rounded is due.

Source: https://arxiv.org/abs/2210.17323 (GPTQ).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from keras_vit_export.activations import Activations

# Part of the mean variance that is added to each: few images leave inputs that never
# vary, or together only.
_DAMPING = 0.01
# Inputs whose errors reach the later ones in one product, and images whose tokens do.
_SPAN = 64
_IMAGES = 16


class Moments(NamedTuple):
    """What a dense layer reads, over all tokens of some images.

    Attributes:
        mean: Shape `(inputs,)`.
        covariance: Shape `(inputs, inputs)`.
    """

    mean: np.ndarray
    covariance: np.ndarray


def measure_moments(
    float_model: bytes, widths: Mapping[str, int], images: np.ndarray
) -> dict[str, Moments]:
    """Moments of tensors of a float `.tflite`, by name.

    Args:
        float_model: The file's content.
        widths: The tensors' names, and how many inputs the layers see that read them.
        images: Uint8 `(count, height, width, c)`.
    """
    activations = Activations(float_model, widths)
    sums: dict[str, list] = {}
    bar = tqdm(
        range(0, len(images), _IMAGES),
        desc="Covariances",
        leave=False,
        delay=2,
        disable=None,
    )
    for begin in bar:
        rows = [activations(image) for image in images[begin : begin + _IMAGES]]
        for name, width in widths.items():
            tokens = np.concatenate([row[name].reshape(-1, width) for row in rows])
            # Of differences from about the mean, which in 32 bits would drown them.
            sums.setdefault(name, [tokens.mean(axis=0), 0, 0.0, 0.0])
            tokens -= sums[name][0]
            parts = (len(tokens), tokens.sum(axis=0), tokens.T @ tokens)
            for place, part in enumerate(parts, 1):
                sums[name][place] += part
    found = {}
    for name, (origin, count, total, squares) in sums.items():
        mean = total / count
        covariance = squares / count - np.outer(mean, mean)
        found[name] = Moments(origin + mean, covariance)
    return found


def round_layer(
    kernel: np.ndarray,
    bias: np.ndarray | None,
    moments: Moments,
    steps: np.ndarray,
    largest: int,
) -> None:
    """Rounds a dense layer's kernel in place, and moves its bias by what that changes.

    Args:
        kernel: Shape `(outputs, inputs)`.
        bias: Shape `(outputs,)`; `None` if there is none to take up the mean.
        moments: Of what the layer reads.
        steps: Of the grid, `(outputs, 1)` or `(1, 1)`.
        largest: Steps from zero to the largest weight.
    """
    mean, spread = moments
    if bias is None:
        spread = spread + np.outer(mean, mean)
    rounded = _round(kernel, spread, steps, largest)
    if bias is not None:
        bias += (kernel - rounded) @ mean
    kernel[:] = rounded


def _round(kernel, spread, steps, largest) -> np.ndarray:
    inputs = kernel.shape[1]
    # What varies most first, while there are many left to make up for it.
    order = np.argsort(-np.diag(spread))
    feedback = feedback_of(spread[np.ix_(order, order)])
    steps = steps.T.astype(np.float32)
    weights = np.ascontiguousarray(kernel.T[order])
    errors = np.zeros_like(weights)
    for begin in range(0, inputs, _SPAN):
        end = min(begin + _SPAN, inputs)
        wanted = weights[begin:end] + feedback[:begin, begin:end].T @ errors[:begin]
        for at, it in enumerate(range(begin, end)):
            units = np.rint(wanted[at] / steps[0]).clip(-largest, largest)
            errors[it] = weights[it] - units * steps[0]
            wanted[at + 1 :] += feedback[it, it + 1 : end, None] * errors[it]
    return (weights - errors)[np.argsort(order)].T


def feedback_of(spread: np.ndarray) -> np.ndarray:
    """How much of each input's error the weights of later inputs are to make up for.

    With U U^T = spread, U upper triangular, errors e make the output wrong by |e U|^2,
    the sum over k of U_kk^2 (e_k + sum_{j<k} e_j U_jk / U_kk)^2: weight k is best
    rounded from where the bracket is zero.

    Returns:
        U_jk / U_kk, shape `(inputs, inputs)`.

    Source: https://arxiv.org/abs/2307.13304 (QuIP), section 3, which shows that this is
    GPTQ.
    """
    spread = spread.astype(np.float64)
    spread[np.diag_indices_from(spread)] += (_DAMPING * np.diag(spread).mean()) or 1.0
    # Turned round, Cholesky's lower factor is an upper one.
    upper = np.linalg.cholesky(spread[::-1, ::-1])[::-1, ::-1]
    return (upper / np.diag(upper)).astype(np.float32)
