"""Nothing in a file of ours is read otherwise by a GPU than by a CPU."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from covering import check_layout
from keras_vit_export.exporter import export
from keras_vit_export.gpu.pitfalls import pitfalls
from keras_vit_export.report.wording import details

OLD_LAYOUT = pathlib.Path(__file__).parents[1] / "runtimes/old_layout.tflite"


def test_smoothing_brings_no_shape_to_guess(model, pixels):
    from keras_vit_export.graph.convert import convert_graph, read_origin
    from keras_vit_export.graph.rewrites import rewrite
    from keras_vit_export.quantization import smoothing

    graph = rewrite(read_origin(model).graph)
    rows = {it.name: np.geomspace(1, 99, 32)[None] for it in graph.branches}
    smooth = smoothing.smooth(graph, rows, per_token=False)
    assert smooth is not graph
    check_layout(convert_graph(smooth))


def test_the_first_versions_file_has_a_pitfall():
    """Its GPU's answers were right in 22 % of 100 digits."""
    assert list(pitfalls(OLD_LAYOUT.read_bytes())) == ["positions"]


def converted(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    traced = tf.function(function).get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()


@pytest.mark.parametrize(
    ("function", "shapes", "words"),
    [
        (lambda x: x + np.ones((5, 8), "f"), [(5, 8)], "becomes the batch"),
        (
            lambda x: x * np.arange(24, dtype="f").reshape(3, 1, 8),
            [(3, 5, 8)],
            "becomes the batch",
        ),
        (lambda x: x - np.ones((1, 5, 8), "f"), [(1, 5, 8)], None),
        (lambda x: x - np.ones((2, 3, 4, 8), "f"), [(2, 3, 4, 8)], None),
        (lambda x: x * np.ones(8, "f"), [(5, 8)], None),
        (lambda x: x * 3.0, [(5, 8)], None),
        (lambda x, y: x + y, [(3, 4, 8), (1, 3, 4, 8)], "two ranks"),
        (lambda x, y: x * y, [(1, 5, 1), (1, 5, 8)], "on the left"),
        (lambda x, y: x * y, [(1, 5, 8), (1, 5, 1)], None),
        (lambda x, y: x @ y + x, [(1, 2, 5, 5), (1, 2, 5, 5)], None),
        (
            lambda x, y, z: x @ y + z,
            [(1, 2, 5, 5), (1, 2, 5, 5), (1, 1, 1, 5)],
            "product of matrices",
        ),
        (lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 0]]), [(1, 5, 8)], "shifts rows"),
    ],
)
def test_a_pitfall_is_named_and_nothing_else(function, shapes, words):
    found = list(pitfalls(converted(function, *shapes)).values())
    assert [words in it for it in found] == [True] if words else not found


def test_a_model_of_another_make_gets_a_named_warning(images):
    inputs = keras.Input((8, 12, 3))
    x = keras.ops.mean(inputs, axis=3, keepdims=True) * inputs
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    _, report = export(keras.Model(inputs, x), "float32", images, logits=True)
    (words,) = report.pitfalls.values()
    assert "(1, 8, 12, 1), on the left" in words
    assert words in details(report)
