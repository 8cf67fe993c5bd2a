"""Weights are rounded by what they change, each error made up for by the next."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras_vit_device.tflite.operations import read_graph, read_operations
from keras_vit_export.activations import read_all
from keras_vit_export.exporter import Exporter
from keras_vit_export.graph.packing import pack
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES, for_old_runtime
from keras_vit_export.quantization.rounding import (
    Moments,
    feedback_of,
    measure_moments,
    round_layer,
)
from keras_vit_export.quantization.sensitivity import layers


@pytest.fixture
def rows(rng):
    """What a layer reads: inputs that vary together, about a mean."""
    mixed = rng.normal(size=(400, 96)) @ rng.normal(size=(96, 96))
    return (mixed + rng.normal(0.0, 3.0, 96)).astype("float32")


@pytest.fixture
def kernel(rng):
    return rng.normal(size=(32, 96)).astype("float32")


def moments_of(rows):
    return Moments(rows.mean(axis=0), np.cov(rows.T, bias=True))


def loss(rows, kernel, rounded, bias=0.0):
    return np.mean((rows @ (kernel - rounded).T - bias) ** 2)


def test_what_a_layer_gives_changes_less_than_by_rounding_to_the_nearest(rows, kernel):
    steps = np.abs(kernel).max(axis=1, keepdims=True) / 7
    rounded, bias = kernel.copy(), np.zeros(32, "float32")
    round_layer(rounded, bias, moments_of(rows), steps, 7)
    units = rounded / steps
    np.testing.assert_allclose(units, np.rint(units), atol=1e-4)
    assert np.abs(units).max() <= 7.001
    nearest = np.rint(kernel / steps) * steps
    assert loss(rows, kernel, rounded, bias) < 0.6 * loss(rows, kernel, nearest)
    # The bias takes up all of the mean.
    change = (rows @ rounded.T + bias - rows @ kernel.T).mean(axis=0)
    assert np.abs(change).max() < 1e-3

    alone = kernel.copy()
    round_layer(alone, None, moments_of(rows), steps, 7)
    assert loss(rows, kernel, alone) < 0.6 * loss(rows, kernel, nearest)


def test_each_error_is_made_up_for_by_those_not_yet_rounded(rows, kernel):
    """As the paper's equations 2 and 3 have it, an inverse for each step."""
    # In this order already: what varies most comes first.
    rows = rows[:, np.argsort(-rows.var(axis=0))]
    steps = np.abs(kernel).max(axis=1, keepdims=True) / 7
    mean, spread = moments_of(rows)
    damped = spread + 0.01 * np.diag(spread).mean() * np.eye(96)
    left, expected = kernel.astype(np.float64), np.empty((32, 96))
    for it in range(96):
        inverse = np.linalg.inv(damped[it:, it:])
        expected[:, it] = np.rint(left[:, it] / steps[:, 0]).clip(-7, 7) * steps[:, 0]
        error = (left[:, it] - expected[:, it]) / inverse[0, 0]
        left[:, it:] -= error[:, None] * inverse[0]
    rounded = kernel.copy()
    round_layer(rounded, np.zeros(32, "float32"), Moments(mean, spread), steps, 7)
    # A tie goes one way in 32 bits and the other in 64, and others follow it.
    assert np.isclose(rounded, expected, atol=1e-4).mean() > 0.98


def test_inputs_that_never_vary_are_rounded_too(kernel):
    feedback = feedback_of(np.zeros((96, 96)))
    np.testing.assert_array_equal(feedback, np.eye(96))
    rounded, steps = kernel.copy(), np.full((32, 1), 0.5)
    nothing = Moments(np.zeros(96), np.zeros((96, 96)))
    round_layer(rounded, np.zeros(32, "float32"), nothing, steps, 127)
    np.testing.assert_allclose(rounded, np.rint(kernel * 2) / 2)


def test_moments_are_those_of_all_tokens(float_model, pixels):
    operations = read_operations(float_model)
    name = next(it.inputs[0] for it in operations if "mlp_hidden" in it.scope)
    (found,) = measure_moments(float_model, {name: 32}, pixels).values()
    tokens = read_all(float_model, [name], pixels)[name].reshape(-1, 32)
    np.testing.assert_allclose(found.mean, tokens.mean(axis=0), atol=1e-5)
    expected = np.cov(tokens.T, bias=True)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-4)


def read_tensor(content, name):
    """A tensor of a file, and its scales."""
    interpreter = Interpreter(model_content=content)
    (it,) = (it for it in interpreter.get_tensor_details() if it["name"] == name)
    scales = it["quantization_parameters"]["scales"]
    return interpreter.get_tensor(it["index"]), scales


def stored(content, name):
    """A weight of a file, as floats."""
    values, scales = read_tensor(content, name)
    return values * scales.reshape(-1, 1)


@pytest.mark.parametrize("compat", [False, True])
def test_a_file_holds_what_was_rounded(compat, float_model, pixels, monkeypatch):
    rounded = []

    def recorded(kernel, *others):
        round_layer(kernel, *others)
        rounded.append(kernel.copy())

    monkeypatch.setattr("keras_vit_export.quantization.quantize.round_layer", recorded)
    recipe = QUANTIZATION_RECIPES["dynamic_int8"]
    recipe = for_old_runtime(recipe) if compat else recipe
    dense = [it for it in read_operations(float_model) if it.kind == "FULLY_CONNECTED"]
    widths = {it.inputs[0]: it.operands[1].shape[1] for it in dense}
    moments = measure_moments(float_model, widths, pixels)
    content = quantize(float_model, recipe, moments=moments)
    plain = quantize(float_model, recipe)
    differing = 0
    for operation, kernel in zip(dense, rounded, strict=True):
        name = operation.constants[0]
        np.testing.assert_allclose(stored(content, name), kernel, atol=1e-6)
        differing += np.any(stored(plain, name) != stored(content, name))
    assert differing == len(dense)


def test_a_bias_of_two_layers_is_left_alone(float_model, pixels):
    graph = read_graph(float_model)
    operators = graph.subgraphs[0].operators
    found = read_operations(float_model)
    first, second = [
        at
        for at, it in enumerate(found)
        if it.kind == "FULLY_CONNECTED" and "_mlp_hidden" in it.scope
    ]
    operators[second].inputs[2] = operators[first].inputs[2]
    shared, name = pack(graph), found[first].operands[2].name
    widths = {found[it].inputs[0]: 32 for it in (first, second)}
    moments = measure_moments(shared, widths, pixels)
    recipe = QUANTIZATION_RECIPES["dynamic_int8"]
    for content, same in ((shared, True), (float_model, False)):
        rounded = quantize(content, recipe, moments=moments)
        before, after = (read_tensor(it, name)[0] for it in (content, rounded))
        assert np.array_equal(before, after) == same


def test_four_bits_keep_more_of_the_logits(model, images):
    exporter = Exporter(model, images)
    for name in ("int4", "int16x8"):
        made = exporter.convert(name)
        assert made.rounded and made.methods.endswith("GPTQ")
        nearest = exporter._candidates._requantize(made, rounded=False)
        lost = exporter.floats.snr(made.float_model, nearest.content)
        assert made.snr_db > lost + 1.0, name


def test_a_sweep_rounds_as_the_file_does(model, images):
    exporter = Exporter(model, images)
    made = exporter.convert("int4")
    (scope, *_) = (
        it for it in layers(made.float_model, made.recipe) if "mlp_output" in it
    )
    found = [
        exporter.damage(dataclasses.replace(made, rounded=rounded)).snr_db([scope])
        for rounded in (True, False)
    ]
    assert found[0] != found[1]


def test_images_too_few_to_round_by_are_said(model, pixels):
    with pytest.raises(ValueError, match="at least 8 images. Received: 7"):
        Exporter(model, pixels[:7]).convert("int4")
    few = Exporter(model, pixels[:7]).convert("dynamic_int8")
    assert not few.rounded
