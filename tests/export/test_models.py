"""Which Keras models are taken, and as what."""

import keras
import numpy as np
import pytest
from keras_vit_device.tflite.operations import weight_types
from keras_vit_export import Classifier, export
from keras_vit_export.exporter import Exporter, export_all
from keras_vit_export.graph.convert import convert_as_it_is, read_origin
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from keras_vit import build_vit, config_of
from keras_vit import model as models
from keras_vit.config import vit as config


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_is_exported_in_float32(
    policy, tiny, randomize, images, pixels
):
    single = randomize(build_vit(tiny()))
    keras.config.set_dtype_policy(policy)
    mixed = build_vit(tiny())
    mixed.set_weights(single.get_weights())
    content, report = export(mixed, "float32", images)
    assert keras.config.dtype_policy().name == policy
    assert report.operations["GELU"] == {"float32": 2}
    assert report.not_rewritten == ""
    logits = single.predict_on_batch(pixels.astype("float32"))
    expected = np.asarray(keras.ops.softmax(logits))
    got = Classifier(content).probabilities(pixels)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_changed_model_of_mixed_precision_is_not_replaced(
    tiny, randomize, monkeypatch, pixels
):
    keras.config.set_dtype_policy("mixed_bfloat16")
    block = models.encoder_block

    def changed(x, config, index):
        return -3.0 * block(x, config, index)

    monkeypatch.setattr(models, "encoder_block", changed)
    model = randomize(build_vit(tiny()))
    monkeypatch.undo()
    assert read_origin(model).graph is None


def test_layers_of_the_same_names_but_other_kinds_are_no_vit(tiny):
    vit = build_vit(tiny())
    head = keras.layers.Dense(3, name="head")(vit.get_layer("pool").output)
    origin = read_origin(keras.Model(vit.input, head))
    assert origin.graph is None
    assert "of other kinds" in origin.reason


def test_operations_that_the_quantizer_has_no_rule_for_are_named(images, rng):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, activation="elu")(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.1, weight.shape))
    _, report = export(model, "int16x8", images, logits=True)
    assert report.skipped == {"ELU": 1}
    assert "made by build_vit" in report.not_rewritten
    assert report.rewrites == ()
    classifier = KerasClassifier(model, logits=True)
    made, refused = Exporter(classifier, images).convert_all()
    assert list(refused) == ["full_int8"]
    assert "integers only" in refused["full_int8"]
    assert weight_types(made["int4"].content) == ["INT8", "INT4"]


def test_a_model_that_no_recipe_bears_says_why(images):
    inputs = keras.Input((8, 12, 3))
    x = keras.ops.erfinv(keras.layers.GlobalAveragePooling2D()(inputs) / 300)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    exporter = Exporter(KerasClassifier(model, logits=True), images)
    with pytest.raises(RuntimeError, match="can't express this model"):
        exporter.convert_all()


def test_a_single_number_in_a_model_has_a_range(images):
    inputs = keras.Input((8, 12, 3))
    x = inputs / (keras.ops.max(inputs) + 1e-3)
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    _, report = export(model, "static_int8", images, logits=True)
    assert report.agreement > 0.9


def test_a_model_of_another_make_is_exported_too(images):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    _, reports = export_all(model, ["float32", "static_int8"], images, logits=True)
    assert reports["float32"].max_difference < 1e-5
    assert reports["static_int8"].agreement > 0.8


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


def test_an_answer_of_no_numbers_is_no_success(images):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    model.layers[-1].kernel.assign(np.full((3, 3), 1e38))
    with pytest.raises(ValueError, match="The Keras model gives NaN or infinity"):
        export(model, "float32", images)
    file = Classifier(convert_as_it_is(KerasClassifier(model)))
    with pytest.raises(ValueError, match="can't be run. It gives NaN or infinity"):
        file.probabilities(np.full((1, 8, 12, 3), 255, "uint8"))


def test_a_changed_model_is_noticed_although_its_softmax_is_sure(
    tiny, randomize, monkeypatch
):
    from keras_vit import model as models

    block = models.encoder_block

    def changed(x, config, index):
        return block(1.1 * x, config, index)

    def sure():
        vit = randomize(build_vit(tiny(head_output="softmax")))
        vit.get_layer("head").logits.bias.assign([60.0, 0.0, 0.0])
        return vit

    assert read_origin(sure()).graph is not None
    monkeypatch.setattr(models, "encoder_block", changed)
    origin = read_origin(sure())
    assert origin.graph is None
    assert "something else" in origin.reason


@pytest.mark.parametrize("nested", [False, True])
def test_mixed_precision_of_another_make_is_exported_in_float32(nested, images, pixels):
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, activation="gelu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))
    keras.config.set_dtype_policy("float32")
    if nested:
        outer = keras.Input((8, 12, 3))
        model = keras.Model(outer, model(outer))
    content, report = export(model, "float32", images, logits=True)
    assert report.operations["GELU"] == {"float32": 1}
    expected = np.asarray(keras.ops.softmax(model(pixels.astype("float32"))))
    np.testing.assert_allclose(
        Classifier(content).probabilities(pixels), expected, atol=0.02
    )


def test_a_layer_that_can_not_be_rebuilt_in_float32_is_named(images):
    class Odd(keras.layers.Layer):
        def __init__(self, needed):
            super().__init__(dtype="mixed_bfloat16")

        def call(self, x):
            return keras.ops.mean(x, axis=(1, 2))

    inputs = keras.Input((8, 12, 3))
    with pytest.raises(ValueError, match=r"rebuilt in float32.*Odd"):
        export(keras.Model(inputs, Odd(needed=1)(inputs)), "float32", images)


def test_models_that_do_not_know_their_shapes_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([keras.layers.Dense(3)]), "model.keras"):
        with pytest.raises(ValueError, match=f"built.*{type(model).__name__}"):
            export(model)


def test_several_inputs_or_named_outputs_are_refused():
    inputs, others = keras.Input((2, 2, 3)), keras.Input((2, 2, 3))
    x = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    both = keras.layers.Dense(3)(keras.layers.Flatten()(inputs + others))
    with pytest.raises(ValueError, match="one image of a fixed size"):
        export(keras.Model([inputs, others], both))
    with pytest.raises(ValueError, match="one row of two or more classes"):
        export(keras.Model(inputs, {"logits": x}))


def test_a_sigmoid_inside_a_model_inside_a_model_is_found():
    inputs, outer = keras.Input((2, 2, 3)), keras.Input((2, 2, 3))
    x = keras.layers.Dense(3, activation="sigmoid")(keras.layers.Flatten()(inputs))
    inner = keras.Model(inputs, x)
    with pytest.raises(ValueError, match="sigmoid"):
        export(keras.Model(outer, inner(outer)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_no_numbers_are_named(dtype, tiny):
    keras.config.set_dtype_policy(dtype)
    model = build_vit(tiny())
    model.get_layer("block_01_mlp").hidden.bias.assign(np.full(12, np.nan))
    with pytest.raises(ValueError, match="block_01_mlp/hidden/bias"):
        export(model)


@pytest.mark.parametrize("recipe", QUANTIZATION_RECIPES)
def test_a_model_of_zeros_is_exported_like_any_other(recipe, tiny, pixels):
    model = build_vit(tiny())  # kernels of (8, 12) and (12, 8): one buffer, two schemes
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    content, _ = export(model, recipe, pixels)
    rows = Classifier(content).probabilities(pixels[:2])
    np.testing.assert_allclose(rows, 1 / 3, atol=0.01)


def test_a_pool_that_no_rewrite_knows_is_exported_as_it_is(
    tiny, randomize, images, pixels, monkeypatch
):
    @keras.saving.register_keras_serializable(package="test")
    class MaxPool(keras.layers.Layer):
        def call(self, tokens):
            return keras.ops.max(tokens, axis=1)

    # All that a new pool takes: its name, and the row of its layer.
    monkeypatch.setattr(config, "POOLS", (*config.POOLS, "max"))
    monkeypatch.setitem(models.KINDS["pool"], "max", (MaxPool, ()))
    vit = randomize(build_vit(tiny(pool="max")))
    assert config_of(vit) == tiny(pool="max")
    content, report = export(vit, "float32", images)
    assert "pool='max'" in report.not_rewritten
    expected = keras.ops.softmax(vit.predict_on_batch(pixels.astype("float32")))
    got = Classifier(content).probabilities(pixels)
    np.testing.assert_allclose(got, expected, atol=1e-5)
