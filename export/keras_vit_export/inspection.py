"""What is inside a `.tflite`: its operations and the types of its weights."""

from collections import Counter
from typing import Any

# Their second input is a weight where it is a constant.
_WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL")


def operations(model: bytes) -> dict[str, int]:
    """How many of each operation a `.tflite` has, the most frequent first."""
    graph = _graph(model)
    return dict(Counter(name for name, _ in _operators(graph)).most_common())


def weight_types(model: bytes) -> list[str]:
    """Type of the weights of each dense layer and convolution: `"FLOAT32"`, `"INT8"`."""
    from ai_edge_litert.tools.flatbuffer_utils import type_to_name

    graph = _graph(model)
    tensors = graph.subgraphs[0].tensors
    stored, found = {}, []
    for name, operator in _operators(graph):
        if name == "DEQUANTIZE":
            stored[operator.outputs[0]] = operator.inputs[0]
        if name in _WEIGHTED:
            weight = stored.get(operator.inputs[1], operator.inputs[1])
            if graph.buffers[tensors[weight].buffer].data is not None:
                found.append(type_to_name(tensors[weight].type))
    return found


def _graph(model: bytes) -> Any:
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    return read_model_from_bytearray(bytearray(model))


def _operators(graph) -> list[tuple[str, Any]]:
    from ai_edge_litert.tools.flatbuffer_utils import opcode_to_name

    return [
        (opcode_to_name(graph, operator.opcodeIndex), operator)
        for operator in graph.subgraphs[0].operators
    ]
