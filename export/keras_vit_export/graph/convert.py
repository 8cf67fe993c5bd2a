"""Keras model -> float32 `.tflite` of one image at a time, as bytes."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras_vit_device.terminal import one_line, quiet

from keras_vit.attention import score_gaps
from keras_vit.config import check_choice
from keras_vit_export.graph.forward import logits
from keras_vit_export.graph.inference import Graph, read
from keras_vit_export.keras_classifier import KerasClassifier

REWRITES_MODES = ("auto", "required")
# Parts of the logits' change from image to image, and of their size, that rounding may
# take; a model that `build_vit` did not make is off by far more.
_SAME = 1e-3
_ROUNDING = 1e-5
# Scores of tokens that are nearer to each other, as a part of them, count as equal; and
# images that are tried beside the usual ones, for some where none are.
TIED = 1e-5
_MORE = 5
# What half precision may be off by; a changed model is off by more.
_NEARLY = 0.1


@dataclasses.dataclass(frozen=True)
class Origin:
    """A Keras model and what it is exported from.

    Attributes:
        classifier: The model in float32, as a classifier.
        graph: Its inference graph, not rewritten, or `None`.
        reason: Why there is no graph; empty if there is one.
    """

    classifier: KerasClassifier
    graph: Graph | None
    reason: str


def read_origin(model: keras.Model | KerasClassifier, rewrites: str = "auto") -> Origin:
    """Checks a model and reads its inference graph.

    Args:
        model: From images `(b, height, width, c)` in 0..255 to logits or
            probabilities `(b, num_classes)`.
        rewrites: `"auto"` takes a model as it is where `build_vit` did not make it,
            `"required"` raises.

    Raises:
        ValueError: If the model is no image classifier of a fixed size, has weights that
            are no numbers, or has no inference graph though one is required.
    """
    check_choice("rewrites", rewrites, REWRITES_MODES)
    given = model if isinstance(model, KerasClassifier) else KerasClassifier(model)
    _check_finite(given.model)
    single = _in_float32(given.model)
    classifier = given if single is given.model else given.with_model(single)
    graph, reason = _graph_of(classifier)
    if graph is None and rewrites == "required":
        raise ValueError(f"The model can't be rewritten. {reason}")
    return Origin(classifier, graph, reason)


def _check_finite(model: keras.Model) -> None:
    """Raises a `ValueError` that names the first layer with weights of no numbers."""
    for weight in model.weights:
        values = weight.numpy()
        if (
            values.dtype.kind in "fV"
            and not np.isfinite(values.astype("float32")).all()
        ):
            raise ValueError(
                f"Weights must be finite numbers. Received: NaN or infinity in "
                f"'{weight.path}'"
            )


def _graph_of(classifier: KerasClassifier) -> tuple[Graph | None, str]:
    try:
        graph = read(classifier.model)
    except ValueError as error:
        return None, str(error)
    except AttributeError as error:  # a layer of a kind that `read` doesn't know
        return None, f"It has layers of other kinds. {error}"
    if not _computes(graph, classifier.model):
        return None, "It has layers of build_vit but computes something else."
    return graph, ""


def _computes(graph: Graph, model: keras.Model) -> bool:
    """Whether the graph gives the model's logits: of noise, faint noise and one colour.

    Before softmax, which hides everything but the first class of a model that is sure.
    """
    rng = np.random.default_rng(0)
    shape = (1, *graph.image_shape)
    images = [rng.uniform(0, high, shape) for high in (255, 25)] + [np.full(shape, 255)]
    if graph.prunings:
        images += [rng.uniform(0, 255, shape) for _ in range(_MORE)]
        # Of nearly equal scores, rounding says which patch is kept.
        apart = score_gaps(model, np.concatenate(images)) > TIED
        images = [it for it, is_apart in zip(images, apart) if is_apart] or images
    before = keras.Model(model.inputs[0], _logits_of(model))
    expected = np.asarray(before(np.concatenate(images), training=False))
    got = [logits(graph, tf.constant(image, tf.float32)) for image in images]
    error = np.abs(np.concatenate(got) - expected).max()
    moves = np.ptp(expected, axis=0).max()  # with the image; a bias does not
    return error <= _SAME * moves + _ROUNDING * max(np.abs(expected).max(), 1e-6)


def _logits_of(model: keras.Model) -> keras.KerasTensor:
    """What a model of `build_vit` gives, without softmax."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if getattr(last, "head_output", "logits") == "logits":
        return model.output
    x = last.input
    for dense in (*last._hidden, last.logits):
        x = dense(x)
    return x


def _in_float32(model: keras.Model) -> keras.Model:
    """A model trained in mixed precision, rebuilt: its casts hide GELU from TFLite."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    noise = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:]))
    try:
        rebuilt = keras.models.clone_model(
            model, clone_function=_layer_in_float32, recursive=True
        )
        _copy_weights(model, rebuilt)
        expected, got = (
            np.asarray(it(noise, training=False)) for it in (model, rebuilt)
        )
    except Exception as error:  # a layer's own, of any class
        raise ValueError(
            f"The model can't be rebuilt in float32, which mixed precision needs. {error}"
        ) from error
    if np.abs(got - expected).max() > _NEARLY * max(np.abs(expected).max(), 1e-6):
        raise ValueError("The model computes something else when rebuilt in float32.")
    return rebuilt


def _copy_weights(model: keras.Model, rebuilt: keras.Model) -> None:
    """As a file is loaded: layers may have to do more than take the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.weights.h5"
        model.save_weights(path)
        rebuilt.load_weights(path)


def _layer_in_float32(layer: keras.Operation) -> keras.Operation:
    # Operations on symbolic tensors, `x + y`, have no policy of their own.
    dtype = {"dtype": "float32"} if isinstance(layer, keras.Layer) else {}
    return layer.__class__.from_config(layer.get_config() | dtype)


def convert_graph(graph: Graph) -> bytes:
    """A float32 `.tflite` from an inference graph, ending in softmax.

    Raises:
        RuntimeError: If the builtin operations can't express the graph.
    """

    def serve(image):
        scores = logits(graph, image)
        return {"probabilities": tf.nn.softmax(scores, name="probabilities")}

    spec = tf.TensorSpec((1, *graph.image_shape), tf.float32, "image")
    with tempfile.TemporaryDirectory() as folder, _conversion():
        traced = tf.function(serve, autograph=False).get_concrete_function(spec)
        # From a folder and not from the function: calibration needs the signature.
        tf.saved_model.save(tf.Module(), folder, signatures={"serve": traced})
        return _converter(folder).convert()


def convert_as_it_is(classifier: KerasClassifier) -> bytes:
    """A float32 `.tflite` of any Keras image classifier, ending in probabilities.

    Raises:
        RuntimeError: If the builtin operations can't express the model.
    """
    model = classifier.model

    def serve(image):
        output = model(image, training=False)
        if classifier.ends_in_probabilities:
            return {"probabilities": output}
        return {"probabilities": tf.nn.softmax(output)}

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, "image")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, [spec])
    with tempfile.TemporaryDirectory() as folder, _conversion():
        archive.write_out(folder, verbose=False)
        return _converter(folder).convert()


def _converter(folder: str) -> tf.lite.TFLiteConverter:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    # Without this TensorFlow's own operations slip in, which few devices have.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


@contextlib.contextmanager
def _conversion() -> Iterator[None]:
    """Turns what the converter raises into one kind of error, and keeps its log short."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # not where its temporary folder is
    try:
        with quiet():
            yield
    except Exception as error:  # the converter's errors have no common class
        reason = one_line(error, 300)
        if isinstance(error, (OSError, tf.errors.ResourceExhaustedError)):
            said = f"Converting takes more room than there is. {reason}"
            raise OSError(said) from error
        raise RuntimeError(
            f"TFLite's builtin operations can't express this model. {reason}"
        ) from error
    finally:
        logger.setLevel(level)
