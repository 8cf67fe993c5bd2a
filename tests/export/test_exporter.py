"""Keras -> TFLite: every recipe reaches what it names, and the report says what is."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_vit_export import Classifier, export
from keras_vit_export.calibration import LEAST_IMAGES, METHODS
from keras_vit_export.convert import convert_graph, read_origin
from keras_vit_export.exporter import Exporter, export_all
from keras_vit_export.inspection import (
    operations,
    read_operations,
    tensor_types,
    weight_types,
)
from keras_vit_export.quantization import quantize, skipped
from keras_vit_export.recipes import RECIPES, Rule
from keras_vit_export.report import measure, median_latency_ms, table
from keras_vit_export.rewrites import rewrite
from keras_vit_export.smoothing import LEAST_GAIN_DB

from keras_vit import build_vit
from keras_vit.pipeline import array_source

CALIBRATED = [name for name, recipe in RECIPES.items() if recipe.calibrated]


@pytest.fixture
def model(tiny, randomize):
    """Wide enough that 8 bits round as they do in real models."""
    fields = {"width": 32, "num_heads": 2, "mlp_dim": 64, "stem": (8,)}
    return randomize(build_vit(tiny(**fields)))


@pytest.fixture
def float_model(model):
    return convert_graph(rewrite(read_origin(model).graph))


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
    made = {name: exporter.convert(name) for name in RECIPES}
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
    assert reports["int4"].snr_db < reports["dynamic_int8"].snr_db < 60


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
    for name, recipe in RECIPES.items():
        report = reports[name]
        assert report.recipe == name
        assert report.size_bytes == len(files[name])
        assert ("calibration" in report.splits) == recipe.calibrated
        assert report.splits["report"] == {"split": "given", "images": 16}
        assert "fold_norms" in report.rewrites
        assert "fold_layer_scale" not in report.rewrites, "there is none"
        assert report.skipped == {}
        assert report.environment["tensorflow"] == tf.__version__
        assert report.peak_memory_bytes > 0
    assert reports["static_int8"].chosen in ("min_max", "percentile", "mse")
    assert reports["int4"].chosen in RECIPES["int4"].roundings
    assert reports["dynamic_int8"].chosen == ""
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
    recipe = RECIPES["dynamic_int8"]
    partial = dataclasses.replace(recipe, rules=(Rule(operation="FULLY_CONNECTED"),))
    with pytest.raises(RuntimeError, match="should leave all weights INT8.*FLOAT32"):
        quantize(float_model, partial)


def test_floats_in_an_integer_recipe_are_an_error(float_model, pixels):
    recipe = dataclasses.replace(RECIPES["dynamic_int8"], integers_only=True)
    with pytest.raises(RuntimeError, match="integers only.*float tensors"):
        quantize(float_model, recipe)


def test_operations_that_the_quantizer_has_no_rule_for_are_named(images, rng):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, activation="elu")(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.1, weight.shape))
    _, report = export(model, "int16x8", images)
    assert report.skipped == {"ELU": 1}
    assert "made by build_vit" in report.not_rewritten
    assert report.rewrites == ()
    made, refused = Exporter(model, images).convert_all()
    assert list(refused) == ["full_int8"]
    assert "integers only" in refused["full_int8"]
    assert weight_types(made["int4"].content) == ["INT8", "INT4"]


def test_skipping_is_what_the_files_say(everything):
    made, _, _ = everything
    one = made["dynamic_int8"]
    assert skipped(one.float_model, one.content, RECIPES["int16x8"])["MUL"] > 0


@pytest.mark.parametrize("recipe", RECIPES)
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
    exporter = Exporter(model, pixels)
    made = exporter.convert(recipe)
    assert exporter._snr(made.float_model, made.content) > 20
    assert np.isfinite(Classifier(made.content).probabilities(pixels)).all()


@pytest.mark.parametrize("recipe", CALIBRATED)
def test_a_recipe_that_needs_images_says_so(recipe, model):
    with pytest.raises(ValueError, match=f"'{recipe}' needs images"):
        export(model, recipe)


def test_too_few_images_are_refused(model, pixels):
    with pytest.raises(
        ValueError, match=f"at least {LEAST_IMAGES} images.*Received: 7"
    ):
        export(model, "static_int8", pixels[:7])


@pytest.mark.parametrize("shape", [(16, 8, 8, 3), (16, 8, 12, 1), (16, 12, 8, 3)])
def test_images_of_another_shape_are_refused(shape, model):
    with pytest.raises(ValueError, match=r"model's shape \(8, 12, 3\)"):
        export(model, "static_int8", np.zeros(shape, "uint8"))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class_are_refused(label, model, pixels):
    labels = np.full(len(pixels), label, "int32")
    images = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8)
    with pytest.raises(ValueError, match=r"Labels must be in 0\.\.2"):
        export(model, "dynamic_int8", images)


def test_labels_in_a_column_count_like_labels_in_a_row(model, pixels):
    labels = np.arange(16, dtype="int64") % 3

    def top1(labels):
        images = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8)
        return export(model, "float32", images)[1].top1

    assert top1(labels) == top1(labels[:, None])
    with pytest.raises(ValueError, match="integers, one an image"):
        top1(np.eye(3)[labels])


@pytest.mark.parametrize("wrong", [np.nan, -1.0, 256.0])
def test_calibration_images_that_are_no_pixels_are_refused(wrong, model, pixels):
    images = pixels.astype("float32")
    images[3, 2, 1, 0] = wrong
    with pytest.raises(ValueError, match=r"pixels in 0\.\.255"):
        export(model, "static_int8", images)


def test_a_data_set_without_end_is_refused(model, images):
    with pytest.raises(ValueError, match="must end"):
        export(model, "float32", images.repeat())


def test_a_changed_model_of_mixed_precision_is_not_replaced(
    tiny, randomize, monkeypatch, pixels
):
    from keras_vit import model as models

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


def test_an_array_calibrates_and_measures_no_accuracy(model, pixels):
    _, report = export(model, "static_int8", pixels)
    assert report.top1 is None
    assert report.splits == {
        "calibration": {"split": "given", "images": 16},
    }


def test_ranges_come_from_training_choices_from_validation_figures_from_test(model):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 8, 12, 3)).astype("uint8")
    rows = {"train": range(30), "validation": range(30, 50), "test": range(50, 60)}
    rows = {split: np.array(chosen) for split, chosen in rows.items()}
    labels = rng.integers(0, 3, 60)
    data = array_source("noise", ["a", "b", "c"], pixels, labels, rows).load()
    exporter = Exporter(model, data)
    shown = {image.tobytes() for image in exporter.splits.calibration}
    assert shown == {image.tobytes() for image in pixels[:30]}
    np.testing.assert_array_equal(exporter.splits.compared, pixels[30:50])
    _, reports = exporter.check({"static_int8": exporter.convert("static_int8")})
    assert reports["static_int8"].splits == {
        "calibration": {"split": "train", "images": 30},
        "choice": {"split": "validation", "images": 20},
        "report": {"split": "test", "images": 10},
    }
    assert reports["static_int8"].images == 10


def test_what_is_chosen_has_the_best_snr_and_smoothing_must_pay(model, images):
    for name in ("static_int8", "int4"):
        exporter = Exporter(model, images)
        made = exporter.convert(name)
        scores = []
        plain = exporter._float_model(made.recipe.without)
        for method in made.recipe.roundings or METHODS:
            content = exporter._quantized(plain, made.recipe, method)
            scores.append(exporter._snr(plain, content))
        least = max(scores) + (LEAST_GAIN_DB if made.smoothed else 0.0)
        assert exporter._snr(made.float_model, made.content) >= least


def test_outliers_of_the_stream_are_smoothed_and_stay_so_under_protection(
    tiny, pixels, rng, monkeypatch
):
    # Whether it pays at the logits is another question, asked above.
    monkeypatch.setattr("keras_vit_export.exporter.LEAST_GAIN_DB", -100)
    model = build_vit(tiny(width=32, mlp_dim=64, pool="mean"))
    for weight in model.weights:
        values = rng.normal(0.0, 0.3, weight.shape)
        if weight.path.startswith("patches"):
            values[..., [3, 20]] *= 40.0
        weight.assign(values)
    exporter = Exporter(model, pixels)
    made = exporter.convert("static_int8")
    assert made.smoothed
    kept = exporter.protect(made, exporter.most_damaging(made)[:1])
    muls = operations(made.float_model)["MUL"]["float32"]
    assert operations(kept.content)["MUL"]["float32"] == muls


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


class Remainder:
    """Calls an image the remainder of its first pixel."""

    size_bytes, operations, class_names = 0, {}, ("a", "b", "c")
    content = b""

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


def test_without_images_nothing_is_called_accuracy(model):
    _, reports = export_all(model, ["float32"])
    assert reports["float32"].top1 is None
    assert reports["float32"].agreement is None
    assert reports["float32"].max_difference < 1e-5
    assert reports["float32"].splits == {}
    assert "not measured" in table(reports)


@pytest.mark.parametrize("recipe", ["dynamic_int8", "static_int8"])
def test_the_same_model_gives_the_same_bytes(recipe, model, images):
    first, second = (export(model, recipe, images)[0] for _ in range(2))
    assert first == second


def test_a_model_of_another_make_is_exported_too(images):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    _, reports = export_all(model, ["float32", "static_int8"], images)
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
