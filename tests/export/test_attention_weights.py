"""Attention's weights of 8 bits: values without a mean, and rows that use all steps."""

import dataclasses

import keras
import numpy as np
import pytest
from covering import COVERING
from keras_vit_device.tflite.operations import read_operations
from keras_vit_export.activations import read_all
from keras_vit_export.exporter import Exporter
from keras_vit_export.gpu.pitfalls import pitfalls
from keras_vit_export.graph import inference
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.forward import MIX
from keras_vit_export.graph.inference import POOL_ATTENTION, Attention
from keras_vit_export.graph.rewrites import centre_values, lift_weights, rewrite
from keras_vit_export.graph.rotation import rotate_heads
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES, Rule

from keras_vit import build_vit
from keras_vit.layers import MultiHeadAttention
from tests.export.test_graph import differences, image, make

__all__ = ["image", "make"]  # fixtures


@pytest.mark.parametrize("index", range(len(COVERING)))
def test_centred_and_lifted_attention_changes_no_logits(index, make, image, rng):
    model = make(**COVERING[index])
    graph = rewrite(inference.read(model))
    layers = {it.name: it.layer for it in graph.branches} | {
        POOL_ATTENTION: graph.pool.attention
    }
    means = {
        name: rng.normal(size=layer.value.bias.shape)
        for name, layer in layers.items()
        if isinstance(layer, Attention)
    }
    centred = centre_values(graph, means)
    lifted = lift_weights(rotate_heads(centred, 1))
    for it in (centred, lifted):
        assert differences(model, image)(it) <= 1e-5
    assert not pitfalls(convert_graph(lifted))
    first = graph.branches[0]
    bias = centred.branches[0].layer.value.bias
    np.testing.assert_allclose(bias, first.layer.value.bias - means[first.name])


@pytest.fixture
def exporter(tiny, rng):
    """One head looks at one token, the other at all 96, whose values are much alike."""
    fields = {"width": 32, "mlp_dim": 64, "patch_size": 1, "depth": 3, "pool": "mean"}
    model = build_vit(tiny(**fields))
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.3, weight.shape))
    for layer in model.layers:
        if isinstance(layer, MultiHeadAttention):
            query = layer.query.kernel
            query.assign(keras.ops.convert_to_numpy(query) * np.repeat([6.0, 0.1], 16))
    positions = model.get_layer("positions").positions
    positions.assign(positions + rng.normal(0.0, 0.5, 32))
    pixels = rng.integers(0, 256, (16, 8, 12, 3)).astype("uint8")
    return Exporter(model, pixels)


def test_what_attention_gives_keeps_more_by_each(exporter):
    rules = (Rule(operation="BATCH_MATMUL", scope=f"{MIX};", activations=8),)
    recipe = QUANTIZATION_RECIPES["fast_int8"]
    recipe = dataclasses.replace(recipe, rules=rules, weight_types=("FLOAT32",))
    candidates = exporter._candidates
    found = []
    for without in (("centre_values",), ()):
        changed = dataclasses.replace(recipe, without=without)
        found.append(candidates._scored(candidates.make_plain(changed)))
    lifted = candidates._lifted_if_better(found[-1])
    plain, centred = found
    assert plain.snr_db + 3.0 < centred.snr_db < lifted.snr_db - 3.0
    graphs = [exporter.floats.graph(it.recipe.without) for it in found]
    assert graphs[1].rewrites == (*graphs[0].rewrites, "centre_values")
    assert exporter._history(lifted)["rewrites"][-2:] == (
        "centre_values",
        "lift_weights",
    )


def test_values_have_no_mean(exporter):
    file = exporter.floats.file(())
    name = "block_01_attention_mix;"
    (mix,) = (it for it in read_operations(file) if it.scope == name)
    images = exporter.splits.calibration
    values = read_all(file, mix.inputs[1:], images)[mix.inputs[1]]
    assert np.abs(values.mean(axis=(0, 1, 3))).max() < 1e-3 * values.std()
    plain = exporter.floats.file(("centre_values",))
    name = mix.inputs[1]
    assert (
        np.abs(read_all(plain, [name], images)[name].mean(axis=(0, 1, 3))).max() > 0.1
    )


@pytest.mark.parametrize("name", ["float32", "dynamic_int8", "full_int8", "int16x8"])
def test_nothing_is_lifted_where_weights_stay_or_softmax_gives_integers(name, exporter):
    recipe = QUANTIZATION_RECIPES[name]
    assert not recipe.rounds_attention
    made = exporter._candidates.make_plain(recipe)
    assert exporter._candidates._lifted_if_better(made) is made
    centred = "centre_values" in exporter._history(made)["rewrites"]
    assert centred == (name in ("full_int8", "int16x8"))


def test_without_images_values_stay_as_they_are(exporter):
    without = Exporter(exporter.origin.classifier.model, None)
    assert "centre_values" not in without.floats.graph(()).rewrites
