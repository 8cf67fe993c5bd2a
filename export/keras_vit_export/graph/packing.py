"""Python objects -> `.tflite`: all inside the flatbuffer, nothing twice."""

from typing import Any

import flatbuffers
import numpy as np

# Where weights start, so that kernels may load them by whole vectors.
_ALIGNMENT = 16


def pack(graph: Any) -> bytes:
    """The flatbuffer of a graph as `tflite.operations.read_graph` gives it.

    Weights with a scale for each output have a zero point for each too: 8 bytes, always
    0. A flatbuffer's tables may point to one vector, so each such vector is written
    once. Weights go inside the flatbuffer, where every runtime looks; litert-quantizer
    puts them behind it, as files over 2 GB need.
    """
    for buffer in graph.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    for subgraph in graph.subgraphs:
        for tensor in subgraph.tensors:
            scheme = tensor.quantization
            if scheme is not None and scheme.zeroPoint is not None:
                scheme.zeroPoint = np.array(scheme.zeroPoint, np.int64)
    builder = _Builder(1024)
    builder.Finish(graph.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    def __init__(self, size: int):
        super().__init__(size)
        self._zero_points: dict[bytes, int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.dtype == np.int64:
            key = x.tobytes()
            if key not in self._zero_points:
                self._zero_points[key] = super().CreateNumpyVector(x)
            return self._zero_points[key]
        if x.dtype == np.uint8:
            self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)
