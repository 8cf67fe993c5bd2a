"""What is inside a `.tflite`: its operations, their precision, the types it holds."""

import dataclasses
import hashlib
from collections import Counter
from typing import Any

from ai_edge_litert.tools.flatbuffer_utils import (
    opcode_to_name,
    read_model_from_bytearray,
    type_to_name,
)

# Their second input is a weight where it is a constant.
WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL")
_CASTS = ("QUANTIZE", "DEQUANTIZE", "CAST")
# To read a file takes a tenth of a second and more, and an export asks ten times.
_KEPT = 16
_read: dict[bytes, tuple["Operation", ...]] = {}


@dataclasses.dataclass(frozen=True)
class Operand:
    """What goes into an operation.

    Attributes:
        name: Its name.
        shape: Its shape.
        constant: Whether the file holds its values.
    """

    name: str
    shape: tuple[int, ...]
    constant: bool


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a `.tflite`.

    Attributes:
        kind: TFLite's name: `"FULLY_CONNECTED"`.
        scope: Names of its outputs, each followed by `;`, as litert-quantizer's rules
            match them.
        precision: What it computes with: `"float32"`, `"int8"`, `"int16"`; where only
            its weights are narrow, `"int8 weights"`, or `"int4 weights in blocks of 32"`
            that share a scale; of a cast, `"to int8"`.
        operands: All that goes in, in its order.
        outputs: Names of its outputs.
        weight_type: TFLite's name of the type of its weight as stored, or `None`.
    """

    kind: str
    scope: str
    precision: str
    operands: tuple[Operand, ...]
    outputs: tuple[str, ...]
    weight_type: str | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs that are no constants."""
        return tuple(it.name for it in self.operands if not it.constant)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of its inputs that are constants."""
        return tuple(it.name for it in self.operands if it.constant)


def read_operations(model: bytes) -> list[Operation]:
    """Every operation of a `.tflite`, in the order in which they run."""
    digest = hashlib.sha256(model).digest()  # to keep no model alive
    if digest not in _read:
        if len(_read) == _KEPT:
            del _read[next(iter(_read))]
        _read[digest] = tuple(list_operations(read_graph(model)))
    return list(_read[digest])


def list_operations(graph: Any) -> list[Operation]:
    """`read_operations` of a flatbuffer that was read already."""
    tensors = graph.subgraphs[0].tensors
    types = [type_to_name(tensor.type) for tensor in tensors]
    names = [tensor.name.decode() for tensor in tensors]
    constant = {i for i, t in enumerate(tensors) if _data(graph, t) is not None}
    stored, found = {}, []
    for kind, operator in _operators(graph):
        inputs = [index for index in operator.inputs if index >= 0]
        outputs = list(operator.outputs)
        if kind == "DEQUANTIZE" and inputs[0] in constant | stored.keys():
            stored[outputs[0]] = inputs[0]
        weight, block = None, 0
        if kind in WEIGHTED and inputs[1] in constant | stored.keys():
            tensor = tensors[stored.get(inputs[1], inputs[1])]
            weight, block = type_to_name(tensor.type), _block(tensor)
        operands = tuple(
            Operand(names[i], _shape(tensors[i]), i in constant) for i in inputs
        )
        found.append(
            Operation(
                kind=kind,
                scope="".join(f"{names[index]};" for index in outputs),
                precision=_precision(kind, types[outputs[0]], weight, block),
                operands=operands,
                outputs=tuple(names[index] for index in outputs),
                weight_type=weight,
            )
        )
    return found


def operations(model: bytes) -> dict[str, dict[str, int]]:
    """How many of each operation there are, by precision; the most frequent first."""
    found = read_operations(model)
    counts = Counter((it.kind, it.precision) for it in found)
    totals = Counter(it.kind for it in found)
    return {
        kind: {
            precision: count
            for (other, precision), count in counts.most_common()
            if other == kind
        }
        for kind, _ in totals.most_common()
    }


def weight_types(model: bytes) -> list[str]:
    """Type of the weights of each dense layer and convolution: `"FLOAT32"`, `"INT8"`."""
    return [it.weight_type for it in read_operations(model) if it.weight_type]


def tensor_types(model: bytes) -> dict[str, int]:
    """How many tensors of each type there are, by TFLite's name of the type."""
    tensors = read_graph(model).subgraphs[0].tensors
    return dict(Counter(type_to_name(tensor.type) for tensor in tensors))


def read_graph(model: bytes) -> Any:
    """The flatbuffer as Python objects."""
    return read_model_from_bytearray(bytearray(model))


def _shape(tensor) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def _block(tensor) -> int:
    """Weights along the input that share a scale; 0 for all of an output's."""
    details = getattr(tensor.quantization, "details", None)
    return getattr(details, "blockSize", 0)


def _precision(kind: str, output_type: str, weight: str | None, block: int) -> str:
    output_type = output_type.lower()
    if kind in _CASTS:
        return f"to {output_type}"
    if output_type == "float32" and weight not in (None, "FLOAT32"):
        return f"{weight.lower()} weights" + (f" in blocks of {block}" if block else "")
    if output_type == "int8" and weight == "INT4":
        return "int8, int4 weights"
    return output_type


def _data(graph, tensor) -> Any:
    return graph.buffers[tensor.buffer].data


def _operators(graph) -> list[tuple[str, Any]]:
    return [
        (opcode_to_name(graph, operator.opcodeIndex), operator)
        for operator in graph.subgraphs[0].operators
    ]
