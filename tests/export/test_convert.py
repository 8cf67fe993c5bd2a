"""Keras -> TFLite: the same answers, builtin operations only, every weight reached."""

import keras
import numpy as np
import pytest
from keras_vit_export import Classifier, export
from keras_vit_export.convert import convert_float, export_all, quantize
from keras_vit_export.inspection import operations, weight_types
from keras_vit_export.recipes import RECIPES
from keras_vit_export.report import measure, median_latency_ms, table

from keras_vit import build_vit

CONFIGS = {
    "token": {"num_registers": 1, "qk_norm": True, "layer_scale": 0.5},
    "mean": {"pool": "mean", "stem": (4,), "class_token": False},
    "map": {"pool": "map", "activation": "gelu_tanh", "positions": "sincos_2d"},
    "sequence": {"pool": "sequence", "activation": "swiglu", "class_token": False},
    "distilled": {"distillation_token": True, "positions": "sinusoidal_1d"},
    "relu": {"activation": "relu", "norm_after_pool": True, "head_hidden": (5,)},
}


@pytest.fixture(scope="module")
def images():
    import tensorflow as tf

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 8, 12, 3)).astype("uint8")
    labels = rng.integers(0, 3, 40).astype("int32")
    return tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(16)


@pytest.mark.parametrize("kind", CONFIGS)
def test_float32_is_the_keras_model_within_rounding(kind, tiny, randomize, images):
    model = randomize(build_vit(tiny(**CONFIGS[kind])))
    content, report = export(model, "float32", images)
    assert report.max_difference < 1e-5
    assert report.agreement == 1.0
    assert set(report.operations) <= ALLOWED, set(report.operations) - ALLOWED
    assert Classifier(content).preprocessing["image_size"] == [8, 12]


# TFLite builtins that phones delegate; FLEX_ and CUSTOM operations are not among them.
ALLOWED = {
    "ADD",
    "BATCH_MATMUL",
    "BROADCAST_TO",
    "CONCATENATION",
    "CONV_2D",
    "DEQUANTIZE",
    "DIV",
    "FULLY_CONNECTED",
    "GELU",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MEAN",
    "MUL",
    "NEG",
    "PACK",
    "RELU",
    "RESHAPE",
    "RSQRT",
    "SOFTMAX",
    "SQUARED_DIFFERENCE",
    "STRIDED_SLICE",
    "SUB",
    "SUM",
    "TILE",
    "TRANSPOSE",
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_is_exported_in_float32(
    policy, tiny, randomize, images
):
    single = randomize(build_vit(tiny()))
    keras.config.set_dtype_policy(policy)
    mixed = build_vit(tiny())
    mixed.set_weights(single.get_weights())
    content = quantize(convert_float(mixed), RECIPES["float32"])
    assert keras.config.dtype_policy().name == policy
    assert operations(content)["GELU"] == 2
    batch = next(images.as_numpy_iterator())[0]
    logits = single.predict_on_batch(batch.astype("float32"))
    expected = np.asarray(keras.ops.softmax(logits))
    got = Classifier(content).probabilities(batch)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "weight_type", "part"),
    [("float16", "FLOAT16", 0.6), ("dynamic_int8", "INT8", 0.45)],
)
def test_a_recipe_reaches_every_weight(recipe, weight_type, part, tiny, randomize):
    model = randomize(build_vit(tiny(width=64, mlp_dim=256, stem=(8,), pool="mean")))
    content = convert_float(model)
    smaller = quantize(content, RECIPES[recipe])
    # Six dense layers a block, one head, a stem and the patches.
    assert weight_types(smaller) == [weight_type] * (2 * 6 + 3)
    assert len(smaller) < part * len(content)


def test_a_recipe_that_misses_a_weight_is_an_error(tiny, randomize):
    import dataclasses

    recipe = RECIPES["dynamic_int8"]
    rule = dict(recipe.rules[0], operation="FULLY_CONNECTED")
    partial = dataclasses.replace(recipe, rules=(rule,))
    content = convert_float(randomize(build_vit(tiny())))
    with pytest.raises(RuntimeError, match="should leave all weights INT8.*FLOAT32"):
        quantize(content, partial)


def test_int8_agrees_with_keras_on_most_images(tiny, randomize, images):
    model = randomize(build_vit(tiny(width=32, pool="mean")))
    _, report = export(model, images=images)
    assert report.recipe == "dynamic_int8"
    # 8 bits: about two digits of each probability.
    assert report.agreement >= 0.9
    assert 1e-5 < report.max_difference < 0.2


def test_the_report_counts_what_the_file_answers(tiny, randomize, images):
    model = randomize(build_vit(tiny()))
    content, report = export(model, "float16", images)
    classifier = Classifier(content)
    pairs = list(images.unbatch().as_numpy_iterator())
    right = [np.argmax(classifier.probabilities([i])[0]) == y for i, y in pairs]
    assert report.top1 == pytest.approx(np.mean(right))
    assert (report.images, report.size_bytes) == (40, len(content))
    assert classifier.contract["top1"] == report.top1


class Remainder:
    """Calls an image the remainder of its first pixel."""

    size_bytes, operations = 0, {}

    def __init__(self, divisor):
        self.divisor = divisor

    def probabilities(self, images):
        return np.eye(3)[np.asarray(images)[:, 0, 0, 0] % self.divisor]


def test_agreement_is_with_the_keras_model_and_top1_with_the_labels(images):
    report = measure(Remainder(3), {"other": Remainder(2)}, images)["other"]
    first = np.concatenate([x[:, 0, 0, 0] for x, _ in images.as_numpy_iterator()])
    labels = np.concatenate([y for _, y in images.as_numpy_iterator()])
    assert report.agreement == np.mean(first % 2 == first % 3)
    assert report.top1 == np.mean(first % 2 == labels)
    assert len({0.0, 1.0, report.agreement, report.top1}) == 4


def test_without_images_nothing_is_called_accuracy(tiny, randomize):
    model = randomize(build_vit(tiny()))
    _, reports = export_all(model, ["float32"])
    assert reports["float32"].top1 is None
    assert reports["float32"].agreement is None
    assert reports["float32"].max_difference < 1e-5
    assert "not measured" in table(reports)


def test_the_same_model_gives_the_same_bytes(tiny, randomize, images):
    model = randomize(build_vit(tiny()))
    first, second = (export(model, "dynamic_int8", images)[0] for _ in range(2))
    assert first == second


def test_a_model_of_another_make_is_exported_too(rng, images):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    _, report = export(model, "float32", images)
    assert report.max_difference < 1e-5


def test_a_model_without_a_fixed_size_is_refused():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="fixed size.*None"):
        export(model)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (keras.layers.Dense(1), "two or more classes"),
        (keras.layers.Dense(3, activation="sigmoid"), "sigmoid"),
        (keras.layers.Reshape((1, 1, 12)), r"output shape \(None, 1, 1, 12\)"),
    ],
)
def test_what_is_no_classifier_is_refused(last, words):
    inputs = keras.Input((2, 2, 3))
    model = keras.Model(inputs, last(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=words):
        export(model)


def test_a_model_of_no_numbers_is_no_success(tiny, images):
    model = build_vit(tiny())
    model.get_layer("head").logits.bias.assign([np.nan] * 3)
    with pytest.raises(RuntimeError, match="numbers that are none"):
        export(model, "float32", images)


def test_an_unknown_recipe_is_answered_with_the_nearest(tiny):
    with pytest.raises(ValueError, match="one of dynamic_int8,.*'dynamic_int'"):
        export(build_vit(tiny()), "dynamic_int")


def test_latencies_are_medians_taken_in_turn():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    medians = median_latency_ms(runs, rounds=3)
    assert order == list("ab") * 8
    assert all(value >= 0 for value in medians.values())
