"""Ranges of activations follow from what was seen and from the error they make."""

import numpy as np
import pytest
from keras_vit_device.tflite.operations import Operand, Operation, read_operations
from keras_vit_export.activations import read_all, snr_db
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.inference import read
from keras_vit_export.graph.rewrites import REWRITES, rewrite
from keras_vit_export.quantization.calibration import (
    METHODS,
    Statistics,
    collect,
    ranges,
)
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from keras_vit import build_vit


@pytest.fixture(scope="module")
def float_model():
    import keras

    from keras_vit import ViTConfig

    keras.utils.set_random_seed(0)
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
    model = build_vit(ViTConfig(image_size=8, patch_size=4, num_classes=3, **sizes))
    names = REWRITES.keys() - {"fuse_queries_keys_values"}
    return convert_graph(rewrite(read(model), names))


@pytest.fixture(scope="module")
def seen():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("uint8")


@pytest.fixture(scope="module")
def statistics(float_model, seen):
    return collect(float_model, seen)


def test_statistics_are_those_of_the_tensors(float_model, seen, statistics):
    name = "block_00_mlp_add"
    values = read_all(float_model, [name], seen)[name]
    assert statistics[name].low == values.min()
    assert statistics[name].high == values.max()
    every_row = {row.tobytes() for row in values.reshape(-1, 16)}
    assert {row.tobytes() for row in statistics[name].rows} <= every_row


def error(values, low, high, levels):
    step = (high - low) / levels
    rounded = np.rint(np.clip(values, low, high) / step) * step
    return np.mean((values - rounded) ** 2)


@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_a_chosen_range_errs_less_than_all_that_was_seen(skew, rng):
    values = rng.standard_t(3, 20_000) + skew
    whole = values.min(), values.max()
    chosen = METHODS["mse"](values, *whole, 15)
    assert whole[0] <= chosen[0] < chosen[1] <= whole[1]
    assert error(values, *chosen, 15) < 0.7 * error(values, *whole, 15)


def test_numbers_without_outliers_are_not_clipped(rng):
    values = rng.uniform(-1, 1, 20_000)
    low, high = METHODS["mse"](values, -1.0, 1.0, 255)
    assert (low, high) == pytest.approx((-1, 1), abs=0.03)


def test_the_percentile_leaves_one_in_ten_thousand_out():
    values = np.concatenate([np.linspace(-1, 1, 99_999), [1000.0]])
    low, high = METHODS["percentile"](values, -1.0, 1000.0, 255)
    assert (low, high) == pytest.approx((-1, 1), abs=0.01)


def test_only_what_a_recipe_quantizes_gets_a_range(float_model, statistics):
    operations = read_operations(float_model)
    found = ranges(
        statistics, operations, QUANTIZATION_RECIPES["static_int8"], "min_max"
    )
    assert found["serve_image:0"] == (0.0, 255.0)
    assert "block_00_attention_mix" in found
    assert "block_00_attention_norm/Mean" not in found
    assert not set(
        ranges(statistics, operations, QUANTIZATION_RECIPES["dynamic_int8"], "min_max")
    ) - {"serve_image:0"}


def test_what_only_moves_shares_one_range_with_zero_in_its_middle(
    float_model, statistics
):
    operations = read_operations(float_model)
    found = ranges(statistics, operations, QUANTIZATION_RECIPES["static_int8"], "mse")
    for part in ("key", "value"):
        product = next(
            it
            for it in operations
            if f"attention_{part}" in it.scope and it.weight_type
        )
        heads = f"block_00_attention_{part}_heads"
        assert found[heads] == found[product.outputs[0]]
        low, high = found[heads]
        # 255 steps from low to high: zero is exactly the 128th.
        assert low / (high - low) * 255 == pytest.approx(-128)


def test_sixteen_bits_keep_all_that_was_seen(float_model, statistics):
    operations = read_operations(float_model)
    found = ranges(
        statistics, operations, QUANTIZATION_RECIPES["int16x8"], "percentile"
    )
    seen = statistics["block_00_mlp_add"]
    assert found["block_00_mlp_add"] == (min(seen.low, 0), max(seen.high, 0))


def test_a_tensor_of_zeros_has_a_range():
    nothing = dict.fromkeys("xy", Statistics(0.0, 0.0, np.zeros((4, 3))))
    taken = (Operand("x", (4, 3), False),)
    operation = Operation("GELU", "y;", "float32", taken, ("y",), None)
    found = ranges(nothing, [operation], QUANTIZATION_RECIPES["full_int8"], "mse")
    assert all(np.isfinite(bound) for pair in found.values() for bound in pair)


def test_every_channel_of_a_wide_tensor_is_looked_at(rng):
    """Of 384 channels the second alone is ten times as large as the others."""
    rows = rng.normal(size=(1024, 384))
    rows[:, 1] *= 10
    seen = dict.fromkeys("xy", Statistics(rows.min(), rows.max(), rows))
    taken = (Operand("x", rows.shape, False),)
    operation = Operation("GELU", "y;", "float32", taken, ("y",), None)
    found = ranges(seen, [operation], QUANTIZATION_RECIPES["full_int8"], "percentile")
    assert found["y"] == pytest.approx(np.percentile(rows, [0.01, 99.99]), rel=0.2)


@pytest.mark.parametrize(("part", "decibels"), [(0.1, 20.0), (1e-3, 60.0)])
def test_snr_is_ten_decibels_a_power_of_ten(part, decibels, rng):
    signal = rng.normal(size=1000)
    assert snr_db(signal, signal * (1 + part)) == pytest.approx(decibels)
    assert snr_db(signal, signal) == pytest.approx(200)
