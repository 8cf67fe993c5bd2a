"""What is chosen is the best, and the same every time."""

import gc
import weakref

import pytest
from keras_vit_device.tflite.operations import operations
from keras_vit_export import export
from keras_vit_export.activations import read_all
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.calibration import METHODS
from keras_vit_export.quantization.smoothing import LEAST_GAIN_DB
from keras_vit_export.report.wording import details

from keras_vit import build_vit


def test_what_is_chosen_has_the_best_snr_and_smoothing_must_pay(model, images):
    for name in ("static_int8", "int4"):
        exporter = Exporter(model, images)
        made = exporter.convert(name)
        scores = []
        plain = exporter.floats.file(made.recipe.without)
        best = exporter._candidates.make_plain(made.recipe)
        for method in METHODS if made.recipe.has_ranges else [""]:
            one = exporter._candidates._requantize(best, method=method)
            scores.append(exporter.floats.snr(plain, one.content))
        rounded = exporter._candidates._requantize(best, rounded=True)
        scores.append(exporter.floats.snr(plain, rounded.content))
        least = max(scores) + (LEAST_GAIN_DB if made.smoothed else 0.0)
        assert exporter.floats.snr(made.float_model, made.content) >= least


def test_outliers_of_the_stream_are_smoothed_and_stay_so_under_protection(
    tiny, pixels, rng, monkeypatch
):
    # Whether it pays at the logits is another question, asked above.
    monkeypatch.setattr("keras_vit_export.candidates.LEAST_GAIN_DB", -100)
    model = build_vit(tiny(width=32, mlp_dim=64, pool="mean"))
    for weight in model.weights:
        values = rng.normal(0.0, 0.3, weight.shape)
        if weight.path.startswith("patches"):
            values[..., [3, 20]] *= 40.0
        weight.assign(values)
    exporter = Exporter(model, pixels)
    turned = exporter.convert("static_int8")
    assert str(turned.rotation) and not turned.smoothed, "no channel stands out"
    monkeypatch.setattr("keras_vit_export.candidates.LEAST_TURN_DB", 100)
    made = exporter.convert("static_int8")
    assert made.smoothed
    with monkeypatch.context() as more:
        more.setattr("keras_vit_export.candidates.LEAST_GAIN_DB", 100)
        assert not exporter.convert("static_int8").smoothed
    kept = exporter.protect(made, exporter.damage(made).first(1))
    muls = operations(made.float_model)["MUL"]["float32"]
    assert operations(kept.content)["MUL"]["float32"] == muls


def test_nothing_keeps_an_exporter_and_its_models(model, images):
    """Else each export of a notebook would take memory until its end."""
    exporter = Exporter(model, images)
    exporter.convert("static_int8")
    kept = weakref.ref(exporter)
    del exporter
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("recipe", ["dynamic_int8", "static_int8"])
def test_the_same_model_gives_the_same_bytes(recipe, model, images):
    first, second = (export(model, recipe, images)[0] for _ in range(2))
    assert first == second


def test_an_unknown_recipe_is_answered_with_the_nearest(tiny):
    with pytest.raises(ValueError, match="one of dynamic_int8,.*'dynamic_int'"):
        export(build_vit(tiny()), "dynamic_int")


def test_layers_are_measured_on_images_of_choice(model, pixels, monkeypatch):
    from keras_vit_export import float_models as module

    used = []

    def recorded(content, names, images):
        used.append(images)
        return read_all(content, names, images)

    exporter = Exporter(model, pixels)
    made = exporter.convert("dynamic_int8")
    monkeypatch.setattr(module, "read_all", recorded)
    assert len(exporter.floats.layer_snr_db(made.float_model, made.content)) == 5
    assert all((images == pixels[:4]).all() for images in used)
    assert len(used) == 2


def outlying(tiny, rng):
    """A model of which two channels of the stream stand far above the others."""
    model = build_vit(tiny(width=32, mlp_dim=64, pool="mean"))
    for weight in model.weights:
        values = rng.normal(0.0, 0.3, weight.shape)
        if "output_projection/kernel" in weight.path:
            values[..., [3, 20]] *= 40.0
        weight.assign(values)
    return model


@pytest.mark.parametrize("recipe", ["dynamic_int8", "static_int8"])
def test_a_stream_with_outliers_is_rotated_if_that_pays(
    recipe, tiny, pixels, rng, monkeypatch
):
    exporter = Exporter(outlying(tiny, rng), pixels)
    made = exporter.convert(recipe)
    assert made.rotation.stream is not None and "stream" in str(made.rotation)
    monkeypatch.setattr("keras_vit_export.candidates.LEAST_TURN_DB", 100)
    plain = exporter.convert(recipe)
    assert not str(plain.rotation)
    assert made.snr_db > plain.snr_db + 3
    kept = exporter.protect(made, exporter.damage(made).first(1))
    assert kept.rotation == made.rotation and kept.float_model == made.float_model


@pytest.mark.parametrize(
    ("fields", "count", "reason"),
    [
        ({}, 4, "to choose on, there are 4 images"),
        ({"pool": "map", "norm_after_pool": True}, 8, "its pool weighs tokens"),
    ],
)
def test_why_a_stream_is_not_rotated_is_said(fields, count, reason, tiny, rng):
    images = rng.integers(0, 256, (count, 8, 12, 3)).astype("uint8")
    model = build_vit(tiny(**fields))
    for recipe in ("dynamic_int8", "float16"):
        _, report = export(model, recipe, images)
        rotatable = recipe == "dynamic_int8"
        assert report.not_rotated.startswith(reason) == rotatable
        assert (f"Not rotated: {reason}" in details(report)) == rotatable
        assert not report.rotated
