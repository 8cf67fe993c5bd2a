"""A file of another graph that computes in the same steps, without converting again.

To convert takes seconds, and graphs that differ in numbers alone are compared.
"""

from collections import Counter

import numpy as np
import tensorflow as tf
from keras_vit_device.tflite.operations import read_graph

from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.forward import logits
from keras_vit_export.graph.inference import Graph
from keras_vit_export.graph.packing import pack

# Axes as TFLite has them: kernels of dense layers and convolutions are turned.
_LAYOUTS = {2: (1, 0), 4: (3, 0, 1, 2)}


def convert_alike(graph: Graph, other: Graph, file: bytes) -> bytes:
    """The float32 `.tflite` of a graph, as `convert_graph` makes it.

    Args:
        graph: To be converted.
        other: Of the same operations, or it is of no help.
        file: Its file. Arrays that differ take the place of the other's, if all of them
            can be told from each other there.
    """
    old, new = _constants(other), _constants(graph)
    if old.keys() != new.keys():
        return convert_graph(graph)
    content = read_graph(file)
    buffers = [it for it in content.buffers if it.data is not None]
    places = {np.asarray(it.data).tobytes(): it for it in buffers}
    alike = Counter(array.tobytes() for array in old.values())
    for name, array in old.items():
        if np.array_equal(array, new[name]):
            continue
        # One that changes and one that does not may be the same in the file.
        if alike[array.tobytes()] > 1 or (found := _find(array, places)) is None:
            return convert_graph(graph)
        place, axes = found
        turned = np.ascontiguousarray(new[name].transpose(axes))
        places[place].data = turned.view(np.uint8).reshape(-1)
    return pack(content)


def _find(array: np.ndarray, places: dict) -> tuple[bytes, tuple[int, ...]] | None:
    """Its bytes in the file, and the order of axes that it has there."""
    same = tuple(range(array.ndim))
    for axes in {same, _LAYOUTS.get(array.ndim, same)}:
        place = array.transpose(axes).tobytes()
        if place in places:
            return place, axes
    return None


def _constants(graph: Graph) -> dict[str, np.ndarray]:
    """Every constant of the forward pass, by name."""
    with tf.Graph().as_default() as traced:
        logits(graph, tf.compat.v1.placeholder(tf.float32, (1, *graph.image_shape)))
    return {
        it.name: tf.make_ndarray(it.get_attr("value"))
        for it in traced.get_operations()
        if it.type == "Const"
    }
