"""Shapes in a `.tflite` that a GPU is known to read otherwise than a CPU, in silence.

A GPU's memory has four axes, batch, height, width and channels. A tensor of lower rank
is laid on them by guessing, and of two that meet in an elementwise operation each may
be laid by another guess. Our own graphs leave nothing to guess (`forward.py`); models of
another make are looked through here.
"""

import dataclasses
from typing import Any

from keras_vit_export.inspection import read_graph

ELEMENTWISE = (
    "ADD",
    "DIV",
    "FLOOR_DIV",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "POW",
    "SQUARED_DIFFERENCE",
    "SUB",
)


@dataclasses.dataclass(frozen=True)
class Operand:
    """What goes into an operation.

    Attributes:
        shape: Its shape.
        constant: Whether the file holds its values.
        maker: TFLite's name of the operation that it comes out of, or empty.
    """

    shape: tuple[int, ...]
    constant: bool
    maker: str


def pitfalls(model: bytes) -> dict[str, str]:
    """Operations of a `.tflite` that some GPU answers wrongly or refuses, with the why.

    Returns:
        A reason by name of the operation's output; nothing for graphs of ours.

    Source: one-operation models on LiteRT 2.3.0's GPU accelerator, and LiteRT's issues
    141, 8593, 8980, 9191 and 9272.
    """
    found = {}
    for kind, output, operands in read_operands(model):
        reason = _pitfall(kind, operands)
        if reason:
            found[output] = f"{kind}: {reason}"
    return found


def _pitfall(kind: str, operands: list[Operand]) -> str:
    if kind == "BROADCAST_TO":
        return "refused (LiteRT 9191)"
    if kind == "PAD" and len(operands[0].shape) == 3:
        return "padding of three axes shifts rows (LiteRT 9272)"
    if kind in ELEMENTWISE and len(operands) == 2:
        return _misread(*operands)
    return ""


def _misread(left: Operand, right: Operand) -> str:
    """How two operands of an elementwise operation may be read; empty if one way only."""
    constants = [it for it in (left, right) if it.constant]
    for constant in constants:
        if len(constant.shape) in (2, 3) and constant.shape[0] > 1:
            other = right if constant is left else left
            if len(other.shape) == len(constant.shape):
                return (
                    f"a constant {_text(constant)} that differs along the first axis of "
                    f"{_text(other)}, which becomes the batch"
                )
    if constants:
        return ""
    if len(left.shape) != len(right.shape):
        return f"tensors of two ranks, {_text(left)} and {_text(right)} (LiteRT 8980)"
    if left.shape == right.shape:
        return ""
    if "BATCH_MATMUL" in (left.maker, right.maker):
        return "a product of matrices meets a smaller tensor (LiteRT 8593, up to 2.1.5)"
    if any(a < b for a, b in zip(left.shape, right.shape, strict=True)):
        return (
            f"{_text(left)}, on the left, is stretched to {_text(right)} (LiteRT 141)"
        )
    return ""


def _text(operand: Operand) -> str:
    return f"({', '.join(map(str, operand.shape))})"


def read_operands(model: bytes) -> list[tuple[str, str, list[Operand]]]:
    """Kind, name of the output and operands of every operation of a `.tflite`."""
    from ai_edge_litert.tools.flatbuffer_utils import opcode_to_name

    graph = read_graph(model)
    subgraph = graph.subgraphs[0]
    makers: dict[int, str] = {}
    found = []
    for operator in subgraph.operators:
        kind = opcode_to_name(graph, operator.opcodeIndex)
        operands = [
            _operand(graph, index, makers) for index in operator.inputs if index >= 0
        ]
        first = subgraph.tensors[operator.outputs[0]].name.decode()
        found.append((kind, first, operands))
        for index in operator.outputs:
            # A cast of what a product gives is still that product.
            cast = kind in ("QUANTIZE", "DEQUANTIZE") and operands
            makers[index] = operands[0].maker if cast else kind
    return found


def _operand(graph: Any, index: int, makers: dict[int, str]) -> Operand:
    tensor = graph.subgraphs[0].tensors[index]
    constant = graph.buffers[tensor.buffer].data is not None
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    return Operand(shape, constant, makers.get(index, ""))
