"""A packed file is the same model, smaller, and all inside the flatbuffer."""

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from keras_vit_device.tflite.operations import read_graph
from keras_vit_export import Classifier
from keras_vit_export.graph.packing import pack
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES


def where(table, field):
    """Where a table keeps a vector, from the start of the file."""
    return table._tab.Vector(table._tab.Offset(field))


def test_zero_points_are_stored_once_and_weights_where_vectors_load_them(float_model):
    content = quantize(float_model, QUANTIZATION_RECIPES["dynamic_int8"])
    model = schema.Model.GetRootAs(content)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    assert all(it.Offset() == it.Size() == 0 for it in buffers), "none is outside"
    starts = [where(it, 4) for it in buffers if it.DataLength()]
    assert len(starts) > 10
    assert all(start % 16 == 0 for start in starts)
    graph = model.Subgraphs(0)
    places = {}
    for index in range(graph.TensorsLength()):
        scheme = graph.Tensors(index).Quantization()
        if scheme is not None and scheme.ZeroPointLength():
            points = tuple(scheme.ZeroPointAsNumpy())
            places.setdefault(points, set()).add(where(scheme, 10))
    assert max(map(len, places)) == 96, "Q, K, V have a scale for each output"
    assert all(len(found) == 1 for found in places.values())


def test_packing_changes_no_answer(float_model, pixels):
    again = pack(read_graph(float_model))
    before, after = (
        Classifier(it).probabilities(pixels) for it in (float_model, again)
    )
    np.testing.assert_array_equal(before, after)
