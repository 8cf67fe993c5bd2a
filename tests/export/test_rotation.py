"""Rotations change no logits, and make all channels of the stream alike."""

import numpy as np
import pytest
from covering import COVERING
from keras_vit_export.graph import inference
from keras_vit_export.graph.rewrites import REWRITES, centre_stream, rewrite
from keras_vit_export.graph.rotation import (
    make_hadamard,
    make_rotation,
    rotate_heads,
    rotate_stream,
    why_not_rotated,
)

from tests.export.test_graph import differences, image, make

__all__ = ["image", "make"]  # fixtures


@pytest.mark.parametrize("index", range(len(COVERING)))
def test_rotations_change_no_logits(index, make, image):
    model = make(**COVERING[index])
    difference = differences(model, image)
    others = REWRITES.keys() - {"fuse_queries_keys_values"}
    graph = rewrite(inference.read(model), others if index % 2 else REWRITES)
    stream = rotate_stream(graph, 3)
    both = rotate_heads(stream, 3)
    for it in (both, rotate_stream(both, 4)):
        assert difference(it) <= 1e-5
    assert (stream is graph) == bool(why_not_rotated(graph))
    if stream is not graph:
        assert np.abs(stream.positions - graph.positions).max() > 0.01
        assert centre_stream(stream) is stream


@pytest.mark.parametrize("width", [6, 8, 12, 80, 192, 384, 768, 1280, 1408])
def test_a_rotation_is_orthogonal_and_spreads_every_channel(width):
    rotation = make_rotation(width, 1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(width), atol=1e-12)
    assert not np.array_equal(rotation, make_rotation(width, 2))
    if width != 6:  # no Hadamard matrix has this order
        np.testing.assert_allclose(np.abs(rotation), width**-0.5)
    assert (make_hadamard(width) is None) == (width == 6)


@pytest.mark.parametrize(
    ("fields", "names", "reason"),
    [
        ({"pool": "map", "norm_after_pool": True}, list(REWRITES), "its pool weighs"),
        ({}, [], "its norms take the mean out"),
        ({}, ["centre_stream"], "or have a gamma"),
    ],
)
def test_a_stream_that_sees_its_axes_is_not_rotated(fields, names, reason, make):
    graph = rewrite(inference.read(make(**fields)), names)
    assert reason in why_not_rotated(graph)
    assert rotate_stream(graph, 0) is graph


def test_a_channel_that_stands_out_does_not_any_more(make):
    graph = rewrite(inference.read(make(width=16)))
    branch = graph.branches[0]
    kernel = branch.layer.output.kernel.copy()
    kernel[:, 3] *= 50
    output = inference.Dense(kernel, branch.layer.output.bias)
    layer = inference.dataclasses.replace(branch.layer, output=output)
    branch = inference.dataclasses.replace(branch, layer=layer)
    graph = graph.replace(branches=(branch, *graph.branches[1:]))

    def unevenness(graph):
        largest = np.abs(graph.branches[0].layer.output.kernel).max(axis=0)
        return largest.max() / np.median(largest)

    assert unevenness(graph) > 20 and unevenness(rotate_stream(graph, 0)) < 3
