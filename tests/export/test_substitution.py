"""A file whose numbers are replaced is the file that converting makes."""

import numpy as np
import pytest
from keras_vit_device.tflite.operations import operations, read_operations
from keras_vit_export.activations import logits_name, read_all
from keras_vit_export.graph import inference, substitution
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.rewrites import rewrite
from keras_vit_export.graph.rotation import rotate_heads, rotate_stream
from keras_vit_export.graph.substitution import convert_alike

from tests.export.test_graph import make

__all__ = ["make"]  # a fixture


@pytest.fixture
def conversions(monkeypatch):
    """What was converted."""
    found = []

    def convert(graph):
        found.append(graph)
        return convert_graph(graph)

    monkeypatch.setattr(substitution, "convert_graph", convert)
    return found


def answers(file, pixels):
    name = logits_name(read_operations(file))
    return read_all(file, [name], pixels)[name]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pool": "mean", "stem": (4,), "layer_scale": 0.5},
        {"pool": "map", "activation": "swiglu", "num_registers": 1},
        {"pool": "token_and_mean", "qk_norm": True},
    ],
)
def test_a_rotated_graph_is_not_converted_again(fields, make, pixels, conversions):
    graph = rewrite(inference.read(make(**fields)))
    file = convert_graph(graph)
    rotated = rotate_heads(rotate_stream(graph, 1), 2)
    found = convert_alike(rotated, graph, file)
    assert not conversions
    assert found != file and operations(found) == operations(file)
    expected, got = answers(convert_graph(rotated), pixels), answers(found, pixels)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_other_operations_or_arrays_that_look_alike_are_converted(
    make, pixels, conversions
):
    graph = rewrite(inference.read(make()))
    file = convert_graph(graph)
    other = rewrite(inference.read(make(depth=1)))
    convert_alike(other, graph, file)
    assert conversions == [other]
    branches = list(graph.branches)  # two that nothing tells apart
    branches[2:] = [
        inference.dataclasses.replace(it, layer=first.layer)
        for it, first in zip(branches[2:], branches, strict=False)
    ]
    twins = graph.replace(branches=tuple(branches))
    rotated = rotate_stream(twins, 0)
    rotated = rotated.replace(
        branches=(*rotated.branches[:2], *rotate_heads(rotated, 3).branches[2:])
    )
    found = convert_alike(rotated, twins, convert_graph(twins))
    assert conversions[1:] == [rotated]
    expected = answers(convert_graph(twins), pixels)
    got = answers(found, pixels)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
