"""Every recipe reaches what it names, and its report says what is in the file."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_vit_device.tflite.operations import (
    operations,
    read_graph,
    read_operations,
    tensor_types,
    weight_types,
)
from keras_vit_export import Classifier
from keras_vit_export.exporter import Exporter
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.quantization.quantize import count_skipped, quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES, Rule
from litert_quantizer import Quantizer

from keras_vit import build_vit

CALIBRATED = [
    name for name, recipe in QUANTIZATION_RECIPES.items() if recipe.images_for
]


@pytest.fixture(scope="module")
def everything(images):
    """Every recipe of one model, exported and measured once."""
    from keras_vit import ViTConfig

    keras.utils.set_random_seed(0)
    config = ViTConfig(
        image_size=(8, 12),
        patch_size=4,
        width=32,
        depth=2,
        num_heads=2,
        mlp_dim=64,
        num_classes=3,
        stem=(8,),
        num_registers=1,
    )
    model = build_vit(config)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.3, weight.shape))
    exporter = Exporter(model, images)
    made = {name: exporter.convert(name) for name in QUANTIZATION_RECIPES}
    return made, *exporter.check(made)


def test_every_recipe_answers_nearly_as_keras_does(everything):
    _, _, reports = everything
    # 16 bits lose little; 8 about a percent of a probability; 4 several.
    least_snr = {"keras": 199, "float32": 100, "float16": 50, "int4": 12}
    for name, report in reports.items():
        assert report.snr_db >= least_snr.get(name, 22), name
        assert report.top1 is not None
        assert report.cosine > 0.95
    assert reports["float32"].max_difference < 1e-5
    assert reports["int4"].snr_db < reports["dynamic_int8"].snr_db < 100


def test_a_recipe_reaches_every_weight(everything):
    made, _, _ = everything
    types = {
        "float32": {"FLOAT32"},
        "float16": {"FLOAT16"},
        "int4": {"INT8", "INT4"},
    }
    for name, one in made.items():
        assert set(weight_types(one.content)) == types.get(name, {"INT8"}), name


def test_full_int8_has_no_float_and_takes_bytes_as_they_are(everything, pixels):
    made, files, reports = everything
    content = made["full_int8"].content
    assert "FLOAT32" not in tensor_types(content)
    assert "DEQUANTIZE" not in operations(content)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    given, answer = interpreter.get_input_details(), interpreter.get_output_details()
    assert given[0]["dtype"] == answer[0]["dtype"] == np.uint8
    assert given[0]["quantization"] == (1.0, 0)
    assert answer[0]["quantization"] == (1 / 256, 0)
    rows = Classifier(files["full_int8"]).probabilities(pixels)
    two = np.sort(rows, axis=1)[:, -2:]
    assert reports["full_int8"].tied_top1 == np.mean(two[:, 0] == two[:, 1])


def test_int16x8_has_floats_at_its_ends_only(everything):
    made, _, _ = everything
    floats = [
        it
        for it in read_operations(made["int16x8"].content)
        if "float32" in it.precision
    ]
    assert [it.kind for it in floats] == ["DEQUANTIZE"]


@pytest.mark.parametrize("name", ["fast_int8", "static_int8"])
def test_attention_products_are_integers_with_zero_point_zero_on_the_right(
    name, everything
):
    made, _, _ = everything
    products = [
        it for it in read_operations(made[name].content) if it.kind == "BATCH_MATMUL"
    ]
    assert len(products) == 4
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_content=made[name].content).get_tensor_details()
    points = {it["name"]: it["quantization"] for it in details}
    for product in products:
        assert product.precision == "int8"
        scale, zero_point = points[product.inputs[1]]
        assert scale > 0 and zero_point == 0


def test_the_report_says_how_each_file_was_made(everything):
    _, files, reports = everything
    for name, recipe in QUANTIZATION_RECIPES.items():
        report = reports[name]
        assert report.recipe == name
        assert report.size_bytes == len(files[name])
        assert ("calibration" in report.splits) == bool(recipe.images_for)
        assert report.splits["report"] == {"split": "given", "images": 16}
        assert "fold_norms" in report.rewrites
        assert "fold_layer_scale" not in report.rewrites, "there is none"
        assert report.skipped == {}
        assert report.environment["tensorflow"] == tf.__version__
        assert report.peak_memory_bytes > 0
    method, *rounding = reports["static_int8"].chosen.split(", ")
    assert method in ("min_max", "percentile", "mse") and rounding in ([], ["GPTQ"])
    assert reports["int4"].chosen == "GPTQ"
    assert reports["dynamic_int8"].chosen in ("", "GPTQ")
    assert "fuse_queries_keys_values" in reports["dynamic_int8"].rewrites
    assert "fuse_queries_keys_values" not in reports["static_int8"].rewrites


def test_layers_lose_more_the_narrower_the_numbers(everything):
    _, _, reports = everything
    least = {
        name: min(r.layer_snr_db.values())
        for name, r in reports.items()
        if r.layer_snr_db
    }
    assert least["float32"] > least["float16"] > least["dynamic_int8"] > least["int4"]
    assert len(reports["static_int8"].layer_snr_db) == 5  # two blocks, logits


def test_a_recipe_that_misses_a_weight_is_an_error(float_model):
    recipe = QUANTIZATION_RECIPES["dynamic_int8"]
    partial = dataclasses.replace(recipe, rules=(Rule(operation="FULLY_CONNECTED"),))
    with pytest.raises(RuntimeError, match="should leave all weights INT8.*FLOAT32"):
        quantize(float_model, partial)


def test_floats_in_an_integer_recipe_are_an_error(float_model, pixels):
    recipe = dataclasses.replace(
        QUANTIZATION_RECIPES["dynamic_int8"], integers_only=True
    )
    with pytest.raises(RuntimeError, match="integers only.*float tensors"):
        quantize(float_model, recipe)


def test_skipping_is_what_the_files_say(everything):
    made, _, _ = everything
    one = made["dynamic_int8"]
    assert (
        count_skipped(one.float_model, one.content, QUANTIZATION_RECIPES["int16x8"])[
            "MUL"
        ]
        > 0
    )


@pytest.mark.parametrize("recipe", QUANTIZATION_RECIPES)
def test_images_of_one_colour_are_no_error_and_no_nan(recipe, everything):
    _, files, _ = everything
    classifier = Classifier(files[recipe])
    one_colour = [np.full((8, 12, 3), value) for value in (0, 255, [255, 0, 7])]
    rows = classifier.probabilities(np.array([*map(np.asarray, one_colour)], "uint8"))
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=0.02)


@pytest.mark.parametrize("recipe", CALIBRATED)
def test_outputs_without_weights_keep_their_bias(recipe, tiny, randomize, pixels):
    model = randomize(build_vit(tiny(width=32, mlp_dim=64, pool="mean")))
    head, hidden = (
        model.get_layer("head").logits,
        model.get_layer("block_00_mlp").hidden,
    )
    for dense, bias in ((head, 2.0), (hidden, 1.5)):
        kernel, biases = dense.kernel.numpy(), dense.bias.numpy()
        kernel[:, 0], biases[0] = 0.0, bias
        dense.kernel.assign(kernel)
        dense.bias.assign(biases)
    exporter = Exporter(KerasClassifier(model, logits=True), pixels)
    made = exporter.convert(recipe)
    assert exporter.floats.snr(made.float_model, made.content) > 20
    assert np.isfinite(Classifier(made.content).probabilities(pixels)).all()


@pytest.mark.parametrize("dead", [[2], range(6)], ids=["one", "all"])
@pytest.mark.parametrize("recipe", CALIBRATED)
def test_dead_channels_of_a_depthwise_convolution_keep_their_bias(
    recipe, dead, pixels, rng
):
    """MobileNet has many. Its kernel has the outputs on the last axis."""
    inputs = keras.Input((8, 12, 3))
    depthwise = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
    x = depthwise(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    kernel = depthwise.kernel.numpy().reshape(3, 3, 6)
    kernel[..., dead] = 0.0
    depthwise.kernel.assign(kernel.reshape(3, 3, 3, 2))
    depthwise.bias.assign(rng.uniform(1.0, 3.0, 6))
    exporter = Exporter(KerasClassifier(model, logits=True), pixels)
    made = exporter.convert(recipe)
    assert exporter.floats.snr(made.float_model, made.content) > 25


def test_dim_images_still_go_in_as_bytes(model, pixels):
    made = Exporter(model, pixels // 4).convert("full_int8")
    from ai_edge_litert.interpreter import Interpreter

    given = Interpreter(model_content=made.content).get_input_details()
    assert given[0]["quantization"] == (1.0, 0)


def test_the_report_counts_what_the_file_answers(everything, images):
    _, files, reports = everything
    classifier = Classifier(files["float16"])
    pairs = list(images.unbatch().as_numpy_iterator())
    right = [np.argmax(classifier.probabilities([i])[0]) == y for i, y in pairs]
    report = reports["float16"]
    assert report.top1 == pytest.approx(np.mean(right))
    assert (report.images, report.size_bytes) == (16, len(files["float16"]))
    assert classifier.contract["top1"] == report.top1


def scales_of_dense_weights(content):
    """Number of scales of each dense layer's 8-bit weights, by type of its output."""
    graph = read_graph(content)
    tensors = graph.subgraphs[0].tensors
    return {
        (tensors[it.outputs[0]].type, len(tensors[it.inputs[1]].quantization.scale))
        for name, it in zip(
            (it.kind for it in read_operations(content)),
            graph.subgraphs[0].operators,
            strict=True,
        )
        if name == "FULLY_CONNECTED"
    }


def test_old_runtimes_get_one_scale_where_floats_meet_bytes(model, images):
    exporter = Exporter(model, images, compat="2.14")
    floats, integers = 0, 9  # TensorType's FLOAT32 and INT8
    for name in ("dynamic_int8", "fast_int8"):
        content = exporter.convert(name).content
        assert scales_of_dense_weights(content) == {(floats, 1)}
    scales = scales_of_dense_weights(exporter.convert("static_int8").content)
    assert {kind for kind, _ in scales} == {integers}
    assert max(count for _, count in scales) > 1, "integers may have many scales"
    made, refused = exporter.convert_all()
    assert refused.keys() == {"full_int8", "int16x8", "int4"}
    assert "newer than 2.14" in refused["int4"]
    assert made.keys() == QUANTIZATION_RECIPES.keys() - refused.keys()


def test_another_version_is_refused(model):
    with pytest.raises(ValueError, match=r"compat must be one of 2\.14"):
        Exporter(model, compat="2.13")


def test_four_bits_in_blocks_as_earlier_versions_wrote_them_go_on_running(
    float_model, pixels
):
    rule = Rule(operation="FULLY_CONNECTED", weights=4).as_litert()
    rule["op_config"]["weight_tensor_config"]["granularity"] = "BLOCKWISE_32"
    quantizer = Quantizer(bytearray(float_model), [rule])
    blocks = bytes(quantizer.quantize(None).quantized_model)
    assert set(operations(blocks)["FULLY_CONNECTED"]) == {
        "int4 weights in blocks of 32"
    }
    found = Classifier(blocks).probabilities(pixels)
    expected = Classifier(float_model).probabilities(pixels)
    assert 0 < np.abs(found - expected).max() < 0.2
