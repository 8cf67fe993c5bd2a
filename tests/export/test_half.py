"""16-bit floats: NumPy's machine is LiteRT's, and says what becomes infinite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_vit_device.tflite.operations import read_operations
from keras_vit_export.activations import logits_name, read_all
from keras_vit_export.exporter import export
from keras_vit_export.gpu.half import examine
from keras_vit_export.gpu.machine import LARGEST, Machine, to_half
from keras_vit_export.graph.convert import convert_as_it_is, convert_graph, read_origin
from keras_vit_export.graph.headroom import give_headroom, shrink_norms, shrunk_norms
from keras_vit_export.graph.rewrites import rewrite
from keras_vit_export.report.wording import of_half

from keras_vit import build_vit


def converted(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    traced = tf.function(function).get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()


def test_every_tensor_is_rounded_to_16_bits():
    run = Machine(converted(lambda x: x * 1.5 + 0.1, (1, 1, 1, 4)))
    x = np.array([[[0.3, 1.7, 2.9, 11.3]]], np.float32)
    half = np.float16
    expected = (x.astype(half) * half(1.5)).astype(half) + half(0.1)
    *_, (_, found) = run(to_half(x)).items()
    np.testing.assert_array_equal(found[0], expected.astype(np.float32))


@pytest.mark.parametrize("width", [3, 64, 257])
def test_a_sum_of_16_bits_is_four_terms_and_a_rounding(width, rng):
    a, b = (to_half(rng.normal(size=s).astype("f")) for s in ((5, width), (width, 7)))
    run = Machine(converted(lambda x: x + 1.0, (1, 1, 1, 4)), short_sums=True)
    expected = np.zeros((5, 7))
    for start in range(0, width, 4):
        part = a[:, start : start + 4].astype("d") @ b[start : start + 4]
        expected = (expected + part).astype(np.float16).astype("d")
    np.testing.assert_allclose(run.product(a, b), expected, rtol=2e-3, atol=2e-3)
    total = run.sum(a, -1)
    assert total.shape == (5, 1)
    np.testing.assert_allclose(total[:, 0], a.sum(1), rtol=0.01, atol=0.02)
    huge = np.full((1, 64), 2000.0, np.float32)
    assert np.isinf(run.sum(huge, -1)) and np.isinf(run.product(huge, huge.T))


def test_numbers_of_the_norms_are_those_of_numpy(model, pixels):
    content = convert_graph(rewrite(read_origin(model).graph))
    half = examine(content, pixels[:4])
    names = [
        f"block_0{i}_{kind}_norm/Mul" for i in (0, 1) for kind in ("attention", "mlp")
    ]
    squares = read_all(content, [*names, "final_norm/Mul"], pixels[:4])
    assert half.sums.keys() == squares.keys()
    for name, values in squares.items():
        assert half.sums[name] == pytest.approx(values.sum(-1).max(), rel=0.05)
    largest = max(it.max() for it in squares.values())
    assert half.square.value == pytest.approx(largest, rel=0.05)
    assert half.square.headroom_bits == pytest.approx(
        np.log2(LARGEST / largest), abs=0.1
    )
    assert half.snr_db > 40 and half.snr_of_short_sums_db > 35
    assert half.overflows == () and 0 <= half.subnormals < 0.2


def with_large_channels(model, size):
    """Two channels of the stream are this large, and the norms' gammas undo it."""
    for weight in model.get_layer("positions").weights:
        values = weight.numpy()
        values[..., 3] += size
        values[..., 7] -= size
        weight.assign(values)
    for layer in model.layers:
        if layer.name.endswith("norm"):
            gamma = layer.gamma.numpy() * size / 6
            gamma[[3, 7]] *= 1e-3
            layer.gamma.assign(gamma)
    return model


@pytest.fixture
def large(rng, tiny):
    """A model whose largest square is four times the largest 16-bit float."""
    model = build_vit(tiny(width=32, mlp_dim=64))
    for weight in model.weights:
        noise = rng.normal(0, 0.3 if len(weight.shape) > 1 else 0.1, weight.shape)
        weight.assign(noise if len(weight.shape) > 1 else weight + noise)
    return with_large_channels(model, 512)


def test_norms_that_overflow_are_shrunk_and_no_others(large, pixels):
    graph = rewrite(read_origin(large).graph)
    content = convert_graph(graph)
    before = examine(content, pixels[:4])
    assert before.square.value == pytest.approx(4 * LARGEST, rel=0.05)
    assert before.snr_db < 20 and before.snr_of_short_sums_db < 20
    assert before.overflows[0] == "block_00_attention_norm/Mul"

    treated = give_headroom(
        graph, before, lambda it: examine(convert_graph(it), pixels[:4])
    )
    after = examine(convert_graph(treated), pixels[:4])
    assert after.snr_db > 45 and after.snr_of_short_sums_db > 40
    assert after.overflows == ()
    assert after.sum_of_squares.value < LARGEST / 2  # for images that were not seen
    assert len(shrunk_norms(treated)) == 5
    name = logits_name(read_operations(content))
    exact, same = (
        read_all(it, [name], pixels)[name] for it in (content, convert_graph(treated))
    )
    assert np.abs(exact - same).max() <= 1e-5 * np.abs(exact).max()

    one = {"block_01_mlp_norm": 0.25}
    assert shrunk_norms(shrink_norms(graph, one)) == one


def test_a_model_that_does_not_overflow_stays_as_it_is(model, pixels):
    graph = rewrite(read_origin(model).graph)
    half = examine(convert_graph(graph), pixels[:2])
    assert give_headroom(graph, half, None) is graph


def test_every_kind_of_norm_can_be_shrunk(tiny, randomize, pixels):
    for fields in ({"qk_norm": True, "distillation_token": True}, {"pool": "map"}):
        graph = rewrite(read_origin(randomize(build_vit(tiny(**fields)))).graph)
        content = convert_graph(graph)
        norms = [it.rpartition("/")[0] for it in examine(content, pixels[:1]).sums]
        shrunk = shrink_norms(graph, dict.fromkeys(norms, 0.5))
        assert shrunk_norms(shrunk) == dict.fromkeys(norms, 0.5)
        name = logits_name(read_operations(content))
        exact, same = (
            read_all(it, [name], pixels)[name]
            for it in (content, convert_graph(shrunk))
        )
        assert np.abs(exact - same).max() <= 1e-5 * np.abs(exact).max()


def test_the_export_shrinks_and_says_so(large, images):
    _, report = export(large, "float32", images)
    assert len(report.shrunk) == 5 and report.half["snr_db"] > 45
    assert report.max_difference < 1e-4
    assert of_half(report.half, report.shrunk)[1].startswith("Shrunk by 0.")


def test_a_tensor_that_no_norm_can_help_is_named(model, images):
    hidden = model.get_layer("block_01_mlp").hidden
    hidden.bias.assign(hidden.bias + 1e5)
    _, report = export(model, "float32", images)
    assert report.half["snr_db"] is None
    assert "block_01_mlp_hidden" in report.half["overflows"][0]
    (first, *_) = of_half(report.half, report.shrunk)
    assert first.startswith("Infinite in 16-bit floats, on GPUs and NPUs: block_01_mlp")


def test_a_model_of_another_make_is_tried_or_its_operations_are_named(pixels):
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.LayerNormalization()(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    content = convert_as_it_is(read_origin(model).classifier)
    assert examine(content, pixels[:2]).snr_db > 40
    odd = keras.Model(inputs, keras.layers.Dense(3)(keras.ops.cumsum(x, axis=1)))
    half = examine(convert_as_it_is(read_origin(odd).classifier), pixels[:2])
    assert half.unknown and "want of rules: CUMSUM" in of_half(half.as_dict(), {})[0]
