"""A scale between norm and dense layers changes no answer, and pays for outliers."""

import numpy as np
import pytest
import tensorflow as tf
from keras_vit_device.tflite.operations import operations, read_operations
from keras_vit_export.activations import read_all, snr_db
from keras_vit_export.graph import inference
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.forward import NORMED, logits
from keras_vit_export.graph.rewrites import rewrite
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.quantization.smoothing import readers, smooth

from keras_vit import build_vit


@pytest.fixture
def graph(tiny):
    """Two channels of the residual stream stand far above the others."""
    model = build_vit(tiny(width=32, mlp_dim=64, pool="mean"))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.3, weight.shape))
        if weight.path.startswith("patches"):
            values = weight.numpy()
            values[..., [3, 20]] *= 40.0
            weight.assign(values)
    return rewrite(inference.read(model))


@pytest.fixture
def inputs(graph, pixels):
    return read_inputs(graph, pixels)


def read_inputs(graph, pixels):
    """What the dense layers of each branch read."""
    names = {b.name: f"{b.name}_norm/{NORMED}" for b in graph.branches}
    found = read_all(convert_graph(graph), names.values(), pixels)
    return {branch: found[name].reshape(-1, 32) for branch, name in names.items()}


@pytest.mark.parametrize("per_token", [True, False])
def test_smoothing_changes_no_logits(per_token, graph, inputs, pixels):
    smoother = smooth(graph, inputs, per_token=per_token)
    assert smoother is not graph
    image = tf.constant(pixels[:1], tf.float32)
    expected = logits(graph, image).numpy()
    got = logits(smoother, image).numpy()
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_the_dense_layers_read_is_flatter(graph, inputs):
    smoother = smooth(graph, inputs, per_token=True)
    changed = [
        (old, new)
        for old, new in zip(graph.branches, smoother.branches, strict=True)
        if new is not old
    ]
    assert changed
    for old, new in changed:
        x = inputs[old.name]
        scale = readers(new)[0].kernel[:, 0] / readers(old)[0].kernel[:, 0]
        before = np.abs(x).max(axis=0)
        after = before / scale
        assert after.max() / np.median(after) < before.max() / np.median(before)


def test_smoothing_pays_in_the_quantized_file(graph, inputs, pixels):
    smoother = smooth(graph, inputs, per_token=True)
    gains = []
    for old, new in zip(graph.branches, smoother.branches, strict=True):
        if new is not old:
            gains.append(_snr(smoother, new, pixels) - _snr(graph, old, pixels))
    assert min(gains) > 0
    assert max(gains) > 1


def _snr(graph, branch, pixels):
    """Of what the branch's first dense layer gives, once it is quantized."""
    content = convert_graph(graph)
    name = next(
        it.outputs[0]
        for it in read_operations(content)
        if it.weight_type and f"{branch.name}_" in it.scope
    )
    exact = read_all(content, [name], pixels)[name]
    quantized = quantize(content, QUANTIZATION_RECIPES["dynamic_int8"])
    return snr_db(exact, read_all(quantized, [name], pixels)[name])


def test_the_scale_survives_the_converter(graph, inputs):
    smoother = smooth(graph, inputs, per_token=True)
    count = sum(branch.norm.gamma is not None for branch in smoother.branches)
    assert count
    before = operations(convert_graph(graph))["MUL"]["float32"]
    assert operations(convert_graph(smoother))["MUL"]["float32"] == before + count


def test_without_outliers_nothing_is_smoothed(tiny, pixels):
    graph = rewrite(inference.read(build_vit(tiny(width=32, mlp_dim=64))))
    inputs = read_inputs(graph, pixels)
    assert smooth(graph, inputs, per_token=True) is graph
