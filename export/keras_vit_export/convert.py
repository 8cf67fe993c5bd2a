"""Keras model -> float TFLite model -> quantized TFLite model, as bytes."""

import dataclasses
import tempfile
from collections import Counter

import keras
import tensorflow as tf

from keras_vit.config import check_choice
from keras_vit.model import build_vit, config_of
from keras_vit_export import metadata
from keras_vit_export.classifiers import KerasClassifier
from keras_vit_export.inspection import weight_types
from keras_vit_export.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from keras_vit_export.report import Report, measure
from keras_vit_export.runtime import Classifier


def export(
    model: keras.Model,
    recipe: str = DEFAULT_RECIPE,
    images: tf.data.Dataset | None = None,
) -> tuple[bytes, Report]:
    """Converts a model and measures what came out against what went in.

    Args:
        model: From images `(b, height, width, c)` in 0..255 to logits or
            probabilities `(b, num_classes)`.
        recipe: Name of a recipe.
        images: Held-out batches of images and labels to measure top-1 on. Without
            them only the difference on random pixels is measured, and the report says
            so.

    Returns:
        The `.tflite` file's content and its report.

    Raises:
        ValueError: If the recipe is unknown or the model is no image classifier of a
            fixed size.
        RuntimeError: If TFLite's builtin operations can't express the model, or the
            recipe could not be applied to all of it.
    """
    check_choice("recipe", recipe, RECIPES)
    content, reports = export_all(model, [recipe], images)
    return content[recipe], reports[recipe]


def export_all(
    model: keras.Model, recipes: list[str], images: tf.data.Dataset | None = None
) -> tuple[dict[str, bytes], dict[str, Report]]:
    """`export` for several recipes, measured side by side.

    Returns:
        The files by recipe, and the reports by recipe with one more, `"keras"`, of
        the model itself.
    """
    return check(*convert_all(model, recipes), images)


def convert_all(
    model: keras.Model, recipes: list[str]
) -> tuple[KerasClassifier, dict[str, bytes], dict[str, Classifier]]:
    """The Keras model, and what each recipe makes of it, as bytes and ready to run."""
    for recipe in recipes:
        check_choice("recipe", recipe, RECIPES)
    reference = KerasClassifier(model)
    float_model = convert_float(model)
    plain = {name: quantize(float_model, RECIPES[name]) for name in recipes}
    return reference, plain, {name: Classifier(it) for name, it in plain.items()}


def check(
    reference: KerasClassifier,
    plain: dict[str, bytes],
    candidates: dict[str, Classifier],
    images: tf.data.Dataset | None,
) -> tuple[dict[str, bytes], dict[str, Report]]:
    """Measures what `convert_all` made and puts the figures into the files."""
    reports = measure(reference, candidates, images)
    files = {}
    for name, content in plain.items():
        # Latency and size are the machine's and the file's own to tell.
        figures = {
            figure: getattr(reports[name], figure)
            for figure in ("recipe", "top1", "agreement", "images")
        }
        contract = {"preprocessing": reference.preprocessing, **figures}
        files[name] = metadata.attach(content, reference.class_names, contract)
        reports[name] = dataclasses.replace(reports[name], size_bytes=len(files[name]))
    return files, reports


def convert_float(model: keras.Model) -> bytes:
    """A float32 `.tflite` of one image at a time, TFLite's builtin operations only.

    Raises:
        ValueError: If the model's input has no fixed size.
        RuntimeError: If the builtin operations can't express the model.
    """
    softmax = not KerasClassifier(model).ends_in_probabilities
    model = _in_float32(model)
    image_shape = (1, *model.input_shape[1:])

    def serve(image):
        output = model(image, training=False)
        return {"probabilities": tf.nn.softmax(output) if softmax else output}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", serve, [tf.TensorSpec(image_shape, tf.float32, "image")]
    )
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        # Without this TensorFlow's own operations slip in, which few devices have.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except Exception as error:  # the converter's errors have no common class
            reason = " ".join(str(error).split())[:300]
            raise RuntimeError(
                f"TFLite's builtin operations can't express this model. {reason}"
            ) from error


def _in_float32(model: keras.Model) -> keras.Model:
    """A model trained in mixed precision, rebuilt: its casts hide GELU from TFLite."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float32")
        rebuilt = build_vit(config_of(model))
    finally:
        keras.config.set_dtype_policy(policy)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def quantize(float_model: bytes, recipe: Recipe) -> bytes:
    """Applies a recipe to a float `.tflite` with litert-quantizer.

    Raises:
        RuntimeError: If a weight was left in another type than the recipe's, since
            litert-quantizer skips what it does not support without a word.
    """
    if recipe.rules:
        from litert_quantizer import Quantizer

        rules = [_plain(rule) for rule in recipe.rules]
        quantizer = Quantizer(bytearray(float_model), rules)
        result = quantizer.quantize(
            enable_progress_bar=False, enable_progress_report=False
        )
        float_model = bytes(result.quantized_model)
    found = Counter(weight_types(float_model))
    if set(found) != {recipe.weight_type}:
        raise RuntimeError(
            f"Recipe {recipe.name!r} should leave all weights {recipe.weight_type}. "
            f"Received: {dict(found)}"
        )
    return float_model


def _plain(value):
    """Dictionaries and lists of what a frozen rule holds."""
    if hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    return value
