"""The inference graph is the Keras model, before, under and after every rewrite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from covering import COVERING, check_layout
from keras_vit_device.tflite.operations import read_graph, read_operations
from keras_vit_export.activations import logits_name, read_all
from keras_vit_export.gpu import machine
from keras_vit_export.graph import inference
from keras_vit_export.graph.convert import convert_graph, read_origin
from keras_vit_export.graph.forward import logits
from keras_vit_export.graph.inference import Attention
from keras_vit_export.graph.rewrites import REWRITES, rewrite
from keras_vit_export.quantization import calibration
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from keras_vit import build_vit

# TFLite builtins that phones, GPUs and NPUs take; and none that selects or fills.
ALLOWED = {
    "ADD",
    "BATCH_MATMUL",
    "CONCATENATION",
    "CONV_2D",
    "FULLY_CONNECTED",
    "GELU",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MEAN",
    "MUL",
    "RESHAPE",
    "RSQRT",
    "SLICE",
    "SOFTMAX",
    "SPLIT",
    "SUB",
    "TANH",
    "TRANSPOSE",
}
# Beside them what fewer tokens take.
OF_FEWER = {
    "pool": {"AVERAGE_POOL_2D"},
    "prune": {"GATHER", "SUM", "TOPK_V2"},
}
POOLED = {
    "depth": 4,
    "image_size": (16, 24),
    "num_registers": 1,
    "reduce_tokens": ((0, "pool", 2), (1, "prune", 0.6), (2, "prune", 0.5)),
}


@pytest.fixture
def make(tiny, randomize):
    """A function from fields to a model with random weights."""
    return lambda **fields: randomize(build_vit(tiny(**fields)))


def differences(model, image):
    """A function from a graph to max|a - b| / max|b| on what the model gives."""
    expected = model.predict_on_batch(image)
    softmax = model.get_layer("head").head_output == "softmax" or (
        model.layers[-1].name == "probabilities"
    )

    def difference(graph):
        got = logits(graph, tf.constant(image))
        got = tf.nn.softmax(got) if softmax else got
        return np.abs(got - expected).max() / np.abs(expected).max()

    return difference


@pytest.fixture
def image(pixels):
    return pixels[:1].astype("float32")


@pytest.mark.parametrize("index", range(len(COVERING)))
def test_every_rewrite_alone_and_all_together_change_no_logits(index, make, image):
    model = make(**COVERING[index])
    graph, difference = inference.read(model), differences(model, image)
    for names in ([], *([name] for name in REWRITES), list(REWRITES)):
        assert difference(rewrite(graph, names)) <= 1e-5, names


@pytest.mark.parametrize("missing", REWRITES)
def test_any_rewrite_can_be_switched_off(missing, make, image):
    names = REWRITES.keys() - {missing}
    for fields in (
        {"num_registers": 1, "qk_norm": True, "layer_scale": 0.5},
        {"pool": "map", "stem": (4,), "layer_scale": 0.5},
    ):
        model = make(**fields)
        graph = rewrite(inference.read(model), names)
        assert differences(model, image)(graph) <= 1e-5


def quickly_quantized(content, recipe, pixels):
    """By a recipe, without choosing how."""
    if not any(rule.activations for rule in recipe.rules):
        return quantize(content, recipe)
    statistics = calibration.collect(content, pixels)
    operations = read_operations(content)
    ranges = calibration.ranges(statistics, operations, recipe, "min_max")
    return quantize(content, recipe, ranges)


# XNNPACK's own exp and tanh: single precision, but not TensorFlow's rounding. The
# largest of the set was 4e-6 when this was written.
TFLITE_BOUND = 3e-5


@pytest.mark.parametrize("index", range(len(COVERING)))
def test_the_float32_file_of_every_option_is_the_keras_model(
    index, make, pixels, monkeypatch
):
    model = make(**COVERING[index])
    content = convert_graph(rewrite(inference.read(model)))
    operations = read_operations(content)
    kinds = {it.kind for it in operations}
    steps = {step for _, step, _ in COVERING[index].get("reduce_tokens", ())}
    more = set().union(*(OF_FEWER[step] for step in steps))
    assert kinds - ALLOWED == more, kinds - ALLOWED
    ranks = [len(t.shape) for t in read_graph(content).subgraphs[0].tensors]
    assert max(ranks) <= 4
    check_layout(content)
    # Recipes meet every option, in turn.
    recipes = [
        it for it in QUANTIZATION_RECIPES.values() if not (steps and it.integers_only)
    ]
    recipe = recipes[index % len(recipes)]
    check_layout(quickly_quantized(content, recipe, pixels))
    expected = model.predict_on_batch(pixels.astype("float32"))
    softmax = np.allclose(expected.sum(axis=-1), 1.0, atol=1e-3)
    name = operations[-1].outputs[0] if softmax else logits_name(operations)
    got = read_all(content, [name], pixels)[name][:, 0]
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error <= TFLITE_BOUND
    # And so is it in NumPy, which rounds to 16 bits elsewhere.
    monkeypatch.setattr(machine, "to_half", lambda x: np.asarray(x, np.float32))
    monkeypatch.setattr(machine, "_shorten", lambda x: None)
    for short_sums in (False, True):
        found = machine.Machine(content, short_sums)(pixels[0])[name][0]
        assert np.abs(found - expected[0]).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.long
@pytest.mark.parametrize("variant", ["Ti/16", "B/16"])
def test_the_float32_file_of_a_published_size_is_the_keras_model(variant, rng):
    from keras_vit import ViTConfig

    model = build_vit(ViTConfig.from_variant(variant, image_size=224, num_classes=1000))
    head = model.get_layer("head").logits
    head.kernel.assign(rng.normal(0, 0.05, head.kernel.shape))
    content = convert_graph(rewrite(inference.read(model)))
    pixels = rng.integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    name = logits_name(read_operations(content))
    got = read_all(content, [name], pixels)[name][:, 0]
    expected = model.predict(pixels.astype("float32"), verbose=0)
    assert np.abs(got - expected).max() / np.abs(expected).max() <= 1e-5


def count(graph, kind):
    return sum(it.kind == kind for it in read_operations(convert_graph(graph)))


def test_rms_norms_have_one_mean_and_no_subtraction(make):
    graph = inference.read(make())
    names = list(REWRITES)
    assert count(rewrite(graph, names), "MEAN") == 5  # four in two blocks, and the last
    assert count(rewrite(graph, names), "SUB") == 0
    names.remove("centre_stream")
    assert count(rewrite(graph, names), "MEAN") == 10


def test_a_fused_block_has_two_transposes(make):
    graph = inference.read(make(depth=1, pool="mean", class_token=False))
    assert count(rewrite(graph), "TRANSPOSE") == 2
    assert count(rewrite(graph, ["fold_scaling"]), "TRANSPOSE") == 4


def test_the_mean_stays_as_one_subtraction_before_a_convolution_that_pads(make):
    graph = rewrite(inference.read(make(stem=(4,), pool="mean")))
    assert graph.mean is not None and graph.scale is None
    assert count(graph, "SUB") == 1
    graph = rewrite(inference.read(make(pool="mean")))
    assert graph.mean is None and graph.scale is None


def test_every_writer_of_a_centred_stream_has_mean_zero(make):
    graph = rewrite(inference.read(make(layer_scale=0.5, num_registers=1)))
    writers = [graph.patches, *(branch.layer.output for branch in graph.branches)]
    for writer in writers:
        np.testing.assert_allclose(writer.kernel.mean(axis=-1), 0, atol=1e-12)
        np.testing.assert_allclose(writer.bias.mean(), 0, atol=1e-12)
    for constant in (graph.prefix, graph.positions):
        np.testing.assert_allclose(constant.mean(axis=-1), 0, atol=1e-12)
    assert all(branch.norm.centred for branch in graph.branches)


def test_a_stream_that_a_pool_reads_itself_is_not_centred(make):
    graph = rewrite(inference.read(make(pool="sequence", norm_after_pool=True)))
    assert not any(branch.norm.centred for branch in graph.branches)


def test_the_inner_norm_of_map_stays_a_layer_norm(make):
    graph = rewrite(inference.read(make(pool="map")))
    assert not graph.pool.norm.centred
    assert graph.heads[0].norm.centred


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 1),
        ({"distillation_token": True}, 2),
        ({"pool": "mean"}, 6),
        ({"pool": "map"}, 7),
    ],
)
def test_the_last_block_computes_what_the_head_reads(fields, tokens, make):
    content = convert_graph(rewrite(inference.read(make(**fields))))
    graph = read_graph(content)
    shapes = {t.name.decode(): list(t.shape) for t in graph.subgraphs[0].tensors}
    assert shapes["block_01_mlp_add"] == [1, tokens, 8]
    prefix = 2 if "distillation_token" in fields else 1
    assert shapes["block_00_mlp_add"] == [1, 6 + prefix, 8]


def test_keys_lose_their_bias_only_where_softmax_ignores_it(make):
    def keys(**fields):
        graph = rewrite(inference.read(make(**fields)))
        layers = [branch.layer for branch in graph.branches]
        return [it.key.bias for it in layers if isinstance(it, Attention)]

    assert not any(bias.any() for bias in keys())
    assert all(bias.any() for bias in keys(qk_norm=True))


def test_an_unknown_rewrite_is_answered_with_the_nearest(make):
    with pytest.raises(ValueError, match="one of fold_norms"):
        rewrite(inference.read(make()), ["fold_norm"])


def test_a_model_that_wraps_a_vit_is_taken_as_it_is_or_refused(make):
    wrapped = keras.Sequential([keras.Input((8, 12, 3)), make()])
    origin = read_origin(wrapped)
    assert origin.graph is None
    assert "made by build_vit" in origin.reason
    with pytest.raises(ValueError, match="can't be rewritten.*made by build_vit"):
        read_origin(wrapped, "required")


def test_a_changed_model_with_the_same_names_is_not_taken_for_the_original(make):
    model = make()
    add = model.get_layer("block_00_mlp_add")
    # The same layers, but the second block reads something else.
    twice = keras.Model(model.input, model.output)
    add.call = lambda inputs: 2 * (inputs[0] + inputs[1])
    origin = read_origin(twice)
    assert origin.graph is None
    assert "computes something else" in origin.reason


def test_weights_that_are_no_numbers_are_found_and_their_layer_named(make):
    model = make()
    bias = model.get_layer("block_01_mlp").hidden.bias
    bias.assign([np.nan] * 12)
    with pytest.raises(ValueError, match="finite.*block_01_mlp/hidden/bias"):
        read_origin(model)
