"""How tensors of a file hold the weights of a model: an axis order, a packing."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """One tensor of a file, one or more weights of a model.

    Attributes:
        read: The tensor -> the weights, in order.
        write: The weights, in order -> the tensor.
    """

    read: Callable[[np.ndarray], list[np.ndarray]]
    write: Callable[..., np.ndarray]


class Entry(NamedTuple):
    """Which weights a tensor holds.

    Attributes:
        weights: Their paths in the model, such as `"block_00_mlp/hidden/kernel"`.
        layout: How they lie in the tensor.
    """

    weights: tuple[str, ...]
    layout: Layout


Table = dict[str, Entry]

SAME = Layout(lambda tensor: [tensor], lambda weight: weight)
# PyTorch's linear layer is (out, in), its convolution (out, in, height, width).
LINEAR = Layout(lambda tensor: [tensor.T], lambda kernel: kernel.T)
CONVOLUTION = Layout(
    lambda tensor: [tensor.transpose(2, 3, 1, 0)],
    lambda kernel: kernel.transpose(3, 2, 0, 1),
)


def _stacked_linear(count: int) -> Layout:
    """Linear layers, or their biases, one under another: `(count * out, in)`."""
    return Layout(
        lambda tensor: [part.T for part in np.split(tensor, count)],
        lambda *kernels: np.concatenate([kernel.T for kernel in kernels]),
    )


def split_heads(num_heads: int) -> Layout:
    """Flax' dense layer to heads: kernel `(d, h, e)` or bias `(h, e)`."""

    def write(weight: np.ndarray) -> np.ndarray:
        e = weight.shape[-1] // num_heads
        return weight.reshape(*weight.shape[:-1], num_heads, e)

    return Layout(
        lambda tensor: [tensor.reshape(*tensor.shape[:-2], -1)],
        write,
    )


def merged_heads(num_heads: int) -> Layout:
    """Flax' dense layer from heads: kernel `(h, e, d)`."""
    return Layout(
        lambda tensor: [tensor.reshape(-1, tensor.shape[-1])],
        lambda kernel: kernel.reshape(num_heads, -1, kernel.shape[-1]),
    )


def linear(theirs: str, ours: str) -> Table:
    """A linear layer of PyTorch and its bias."""
    return {
        f"{theirs}.weight": Entry((f"{ours}/kernel",), LINEAR),
        f"{theirs}.bias": Entry((f"{ours}/bias",), SAME),
    }


def stack(theirs: str, ours: Sequence[str]) -> Table:
    """Several linear layers in one of PyTorch, and their biases."""
    return {
        f"{theirs}.{kind}": Entry(
            tuple(f"{layer}/{weight}" for layer in ours), _stacked_linear(len(ours))
        )
        for kind, weight in (("weight", "kernel"), ("bias", "bias"))
    }


def norm(theirs: str, ours: str) -> Table:
    """A LayerNorm of PyTorch."""
    return {
        f"{theirs}.weight": Entry((f"{ours}/gamma",), SAME),
        f"{theirs}.bias": Entry((f"{ours}/beta",), SAME),
    }


def rename(
    tensors: Mapping[str, np.ndarray], patterns: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The same tensors, every pattern in their names replaced.

    Raises:
        ValueError: If two names become one.
    """
    found, origins = {}, {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in patterns.items():
            new = re.sub(pattern, replacement, new)
        if new in found:
            both = sorted((name, origins[new]))
            raise ValueError(f"{both[0]!r} and {both[1]!r} are names of one tensor.")
        found[new], origins[new] = tensor, name
    return found


def depth_of(names: Collection[str], pattern: str) -> int:
    """Number of blocks: one more than the highest number in the names.

    Raises:
        ValueError: If a name has a number that the others can't lead up to.
    """
    numbers = [int(found[1]) for name in names if (found := re.match(pattern, name))]
    depth = max(numbers, default=-1) + 1
    if depth > len(names):
        raise ValueError(f"it names block {depth - 1}, and has {len(names)} tensors.")
    return depth
