"""Runs a float `.tflite` in NumPy, and rounds what each operation gives to 16 bits.

Sums run in 32 bits or, as on hardware that keeps those short too, in 16: four terms
exactly, then a rounding, as kernels do that work on vectors of four.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert.tools.flatbuffer_utils import opcode_to_name
from keras_vit_device.tflite.operations import read_graph

LARGEST = float(np.finfo(np.float16).max)  # 65504
_SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)
_VECTOR = 4
_FUSED = {0: lambda x: x, 1: lambda x: np.maximum(x, 0)}
_SQUARES = ("MUL", "SQUARED_DIFFERENCE")


class UnknownOperationError(ValueError):
    """An operation that NumPy is not told how to run."""


@dataclasses.dataclass(frozen=True)
class Peak:
    """The largest value of its kind, and the name of the tensor that holds it."""

    value: float = 0.0
    name: str = ""

    @property
    def headroom_bits(self) -> float:
        """How often it may double before it is infinite; negative if it is already."""
        return float(np.log2(LARGEST / max(self.value, 1e-30)))


NOTHING = Peak()


def larger(peak: Peak, other: Peak) -> Peak:
    """The one of the larger value; the first of equals."""
    return other if other.value > peak.value else peak


def to_half(x: np.ndarray) -> np.ndarray:
    """To 16 bits and back; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


class Machine:
    """Runs a float `.tflite` in 16-bit floats, and keeps what it saw.

    Args:
        model: The file's content.
        short_sums: Whether sums are of 16 bits too.

    Attributes:
        activation: Largest absolute value of any tensor.
        square: Largest square that a mean reads, before it is rounded.
        sum_of_squares: Largest sum of such squares along the last axis, likewise.
        sums: The same by name of the tensor of squares.
        subnormals: How many values lay below the least normal number but 0.
        counted: How many values there were, without zeros.
        overflows: Names of the tensors that became infinite.
    """

    def __init__(self, model: bytes, short_sums: bool = False):
        graph = read_graph(model)
        subgraph = graph.subgraphs[0]
        self._tensors = subgraph.tensors
        self._input, self._short = subgraph.inputs[0], short_sums
        self._constants = {
            index: value
            for index, tensor in enumerate(subgraph.tensors)
            if (value := _constant(graph, tensor)) is not None
        }
        self._steps = [
            (opcode_to_name(graph, it.opcodeIndex), it) for it in subgraph.operators
        ]
        unknown = {kind for kind, _ in self._steps} - OPERATIONS.keys()
        if unknown:
            raise UnknownOperationError(", ".join(sorted(unknown)))
        self._squares = _squares_of_means(self._steps)
        self.activation = self.square = self.sum_of_squares = NOTHING
        self.sums: dict[str, float] = {}
        self.subnormals = self.counted = 0
        self.overflows: dict[str, None] = {}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The last two tensors by name for an image, logits among them."""
        values = dict(self._constants)
        values[self._input] = np.asarray(image, np.float32)[None]
        last = {}
        with np.errstate(all="ignore"):  # infinities are what is looked for
            for kind, step in self._steps:
                given = [values[index] for index in step.inputs if index >= 0]
                shape = [self._tensors[i].shape for i in step.outputs]
                made = OPERATIONS[kind](self, step.builtinOptions, shape[0], *given)
                made = made if isinstance(made, list) else [made]
                for index, value in zip(step.outputs, made, strict=True):
                    values[index] = self._keep(index, value)
                    last[self._name(index)] = values[index]
        return dict(list(last.items())[-2:])

    def _name(self, index: int) -> str:
        return self._tensors[index].name.decode()

    def _keep(self, index: int, exact: np.ndarray) -> np.ndarray:
        """A tensor in 16 bits, after a look at it; integers as they are."""
        if exact.dtype.kind == "i":
            return exact
        value, size, name = to_half(exact), np.abs(exact), self._name(index)
        largest = float(size.max(initial=0.0))
        if index in self._squares:
            added = float(size.sum(axis=-1).max())
            self.sums[name] = max(self.sums.get(name, 0.0), added)
            self.square = larger(self.square, Peak(largest, name))
            self.sum_of_squares = larger(self.sum_of_squares, Peak(added, name))
        if math.isfinite(largest):
            self.activation = larger(self.activation, Peak(largest, name))
        if not np.isfinite(value).all():
            self.overflows.setdefault(name)
        kept = np.count_nonzero(size)
        self.counted += kept
        self.subnormals += kept - np.count_nonzero(size >= _SMALLEST_NORMAL)
        return value

    def sum(self, x: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
        """The sum along axes, which stay with length 1."""
        if not self._short:
            return x.sum(axis=axis, keepdims=True)
        axes = tuple(np.atleast_1d(axis) % x.ndim)
        moved = np.moveaxis(x, axes, range(len(axes))).reshape(
            -1, *(side for i, side in enumerate(x.shape) if i not in axes)
        )
        total = np.zeros(moved.shape[1:], np.float32)
        for start in range(0, len(moved), _VECTOR):
            total = to_half(total + moved[start : start + _VECTOR].sum(axis=0))
        return np.expand_dims(total, axes)

    def product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The product of matrices `(..., n, k)` and `(..., k, m)`."""
        if not self._short:
            return a @ b
        *batch, rows, width = a.shape
        total = np.zeros((*batch, rows, b.shape[-1]), np.float32)
        for k in range(width):
            total += a[..., :, k, None] * b[..., k, None, :]
            if k % _VECTOR == _VECTOR - 1 or k == width - 1:
                _shorten(total)
        return total


def _shorten(x: np.ndarray) -> None:
    """`rounded` in place, six times as fast where nothing is too large; below the least
    normal number it keeps 11 bits, which the next rounding takes.

    Source: Veltkamp's splitting, of 24 bits into 11 and 13.
    """
    if not np.abs(x).max(initial=0.0) <= LARGEST:
        x[...] = to_half(x)
        return
    scaled = x * np.float32(2**13 + 1)
    np.subtract(scaled, scaled - x, out=x)


def _constant(graph: Any, tensor: Any) -> np.ndarray | None:
    """A constant's value, of floats in 16 bits; `None` for what is computed."""
    data = graph.buffers[tensor.buffer].data
    if data is None:
        return None
    kind = {0: np.float32, 2: np.int32, 4: np.int64}.get(tensor.type)
    if kind is None:
        raise UnknownOperationError("a constant that is neither float32 nor an integer")
    shape = () if tensor.shape is None else tuple(tensor.shape)
    value = np.frombuffer(bytes(data), kind).reshape(shape)
    return to_half(value) if kind is np.float32 else value


def _squares_of_means(steps: list) -> set[int]:
    """Tensors of squares that a mean reads: a norm's."""
    squares = {
        step.outputs[0]
        for kind, step in steps
        if kind in _SQUARES and (kind != "MUL" or step.inputs[0] == step.inputs[1])
    }
    return {step.inputs[0] for kind, step in steps if kind == "MEAN"} & squares


def _elementwise(function: Callable) -> Callable:
    def run(machine, options, shape, *operands):
        fused = getattr(options, "fusedActivationFunction", 0)
        return _activate(fused, function(*operands))

    return run


def _activate(fused: int, x: np.ndarray) -> np.ndarray:
    if fused not in _FUSED:
        raise UnknownOperationError(f"fused activation {fused}")
    return _FUSED[fused](x)


def _dense(machine, options, shape, x, kernel, bias=None):
    x = x.reshape(-1, kernel.shape[1])
    y = machine.product(x, kernel.T)
    y = y if bias is None else y + bias
    return _activate(options.fusedActivationFunction, y).reshape(shape)


def _matrices(machine, options, shape, a, b):
    a = np.swapaxes(a, -1, -2) if options.adjX else a
    b = np.swapaxes(b, -1, -2) if options.adjY else b
    return machine.product(a, b)


def _windows(options, x, sides, value):
    """Windows `(rows, columns, c, side, side)` of the first image."""
    if getattr(options, "dilationHFactor", 1) != 1:
        raise UnknownOperationError("a dilated convolution")
    strides = (options.strideH, options.strideW)
    pads = [(0, 0), (0, 0)]
    if options.padding == 0:  # SAME
        pads = []
        for length, side, stride in zip(x.shape[1:3], sides, strides, strict=True):
            missing = max((-(-length // stride) - 1) * stride + side - length, 0)
            pads.append((missing // 2, missing - missing // 2))
    x = np.pad(x[0], [*pads, (0, 0)], constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(x, sides, (0, 1))
    return windows[:: strides[0], :: strides[1]]


def _convolution(machine, options, shape, x, kernel, bias=None):
    windows = _windows(options, x, kernel.shape[1:3], 0.0)
    rows = windows.transpose(0, 1, 3, 4, 2).reshape(-1, kernel[0].size)
    y = machine.product(rows, kernel.reshape(len(kernel), -1).T)
    y = y if bias is None else y + bias
    return _activate(options.fusedActivationFunction, y).reshape(shape)


def _max_pool(machine, options, shape, x):
    sides = (options.filterHeight, options.filterWidth)
    return _windows(options, x, sides, -np.inf).max(axis=(3, 4))[None]


def _average_pool(machine, options, shape, x):
    if options.padding == 0:
        raise UnknownOperationError("an average pooling that pads")
    sides = (options.filterHeight, options.filterWidth)
    windows = _windows(options, x, sides, 0.0)  # (rows, columns, c, side, side)
    total = machine.sum(windows.reshape(*windows.shape[:3], -1), -1)
    return (total / np.prod(sides)).reshape(shape)


def _order(machine, options, shape, x, count):
    """The largest values and their numbers; of equals the first."""
    order = np.argsort(-x, axis=-1, kind="stable")[..., : int(count)].astype(np.int32)
    return [np.take_along_axis(x, order, axis=-1), order]


def _mean(machine, options, shape, x, axes):
    axes = tuple(np.atleast_1d(axes) % x.ndim)
    count = np.prod([x.shape[axis] for axis in axes])
    return (machine.sum(x, axes) / count).reshape(shape)


def _softmax(machine, options, shape, x):
    weights = to_half(np.exp(to_half(options.beta * (x - x.max(-1, keepdims=True)))))
    return weights / to_half(machine.sum(weights, -1))


def _gelu(machine, options, shape, x):
    if options.approximate:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


def _erf(x: np.ndarray) -> np.ndarray:
    """To 1.5e-7. Source: Abramowitz and Stegun, Handbook, formula 7.1.26."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    powers = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    polynomial = np.zeros_like(t)
    for coefficient in powers:
        polynomial = (polynomial + coefficient) * t
    return np.sign(x) * (1 - polynomial * np.exp(-np.square(x)))


def _reshape(machine, options, shape, x, *_):
    return x.reshape(shape)


def _slice(machine, options, shape, x, begin, size):
    return x[tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))]


def _concatenate(machine, options, shape, *parts):
    return np.concatenate(parts, options.axis)


def _split(machine, options, shape, axis, x):
    return np.split(x, options.numSplits, int(axis))


# By TFLite's name: from the machine, the options and the first output's shape, and
# what goes in.
OPERATIONS: dict[str, Callable] = {
    "ADD": _elementwise(np.add),
    "AVERAGE_POOL_2D": _average_pool,
    "BATCH_MATMUL": _matrices,
    "CONCATENATION": _concatenate,
    "CONV_2D": _convolution,
    "DIV": _elementwise(np.divide),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _dense,
    "GATHER": lambda machine, options, shape, x, order: x.take(order, options.axis),
    "GELU": _gelu,
    "LOGISTIC": _elementwise(lambda x: 1 / (1 + np.exp(-x))),
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MUL": _elementwise(np.multiply),
    "NEG": _elementwise(np.negative),
    "RELU": _elementwise(lambda x: np.maximum(x, 0)),
    "RESHAPE": _reshape,
    "RSQRT": _elementwise(lambda x: 1 / np.sqrt(x)),
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQRT": _elementwise(np.sqrt),
    "SQUARED_DIFFERENCE": _elementwise(lambda a, b: np.square(a - b)),
    "SUB": _elementwise(np.subtract),
    "SUM": lambda machine, options, shape, x, axes: machine.sum(
        x, tuple(np.atleast_1d(axes))
    ).reshape(shape),
    "TANH": _elementwise(np.tanh),
    "TOPK_V2": _order,
    "TRANSPOSE": lambda machine, options, shape, x, axes: x.transpose(axes),
}
