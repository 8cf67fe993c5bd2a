"""A budget is kept by protecting what suffers most, or nothing is given."""

import dataclasses

import numpy as np
import pytest
from keras_vit_device.tflite.operations import WEIGHTED, read_operations
from keras_vit_export import budget
from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization import sensitivity
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.quantization.sensitivity import layers, only, sweep

from keras_vit import build_vit


@pytest.fixture
def exporter(tiny, randomize, pixels):
    """Classes that are nearly alike; the labels are the model's own answers."""
    import tensorflow as tf

    model = randomize(build_vit(tiny(width=32, mlp_dim=64, pool="mean")))
    head, rng = model.get_layer("head").logits, np.random.default_rng(0)
    shared = rng.normal(size=(32, 1))
    head.kernel.assign(shared + 0.2 * rng.normal(size=(32, 3)))
    head.bias.assign(np.zeros(3))
    logits = model.predict(pixels.astype("float32"), verbose=0)
    head.bias.assign(-np.median(logits, axis=0))  # so that none always wins
    labels = model.predict(pixels.astype("float32"), verbose=0).argmax(axis=1)
    pairs = (np.repeat(pixels, 4, axis=0), np.repeat(labels, 4).astype("int32"))
    return Exporter(model, tf.data.Dataset.from_tensor_slices(pairs).batch(8))


def test_the_sweep_goes_from_the_most_damaging_layer_to_the_least(exporter):
    made = exporter.convert("dynamic_int8")
    images = exporter.splits.compared
    found = sweep(made.float_model, made.recipe, {}, images)
    assert list(found.values()) == sorted(found.values())
    # qkv and output, hidden and output, in two blocks; patches and head; and the
    # last block's query, which is made for fewer tokens.
    assert len(found) == 4 * 2 + 2 + 1
    name = logits_name(read_operations(made.float_model))
    exact = read_all(made.float_model, [name], images)[name]
    for scope in (next(iter(found)), next(reversed(found))):
        alone = quantize(made.float_model, only(made.recipe, scope))
        got = snr_db(exact, read_all(alone, [name], images)[name])
        assert got == pytest.approx(found[scope])


def test_a_sweep_quantizes_one_layer_alone(exporter):
    made = exporter.convert("dynamic_int8")
    scope = layers(made.float_model, made.recipe)[1]
    content = quantize(made.float_model, only(made.recipe, scope))
    narrow = [it.scope for it in read_operations(content) if it.weight_type == "INT8"]
    assert narrow == [scope]


def test_a_sweep_rounds_as_the_file_does(exporter, monkeypatch):
    found = set()

    def recorded(float_model, recipe, *others):
        found.update(rule.algorithm for rule in recipe.rules if rule.weights == 4)
        return quantize(float_model, recipe, *others)

    monkeypatch.setattr(sensitivity, "quantize", recorded)
    made = exporter.convert("int4")
    for method in QUANTIZATION_RECIPES["int4"].roundings:
        found.clear()
        exporter.most_damaging(dataclasses.replace(made, method=method))
        assert found == {method}


def test_protected_layers_stay_in_floats_and_only_they(exporter):
    made = exporter.convert("dynamic_int8")
    order = exporter.most_damaging(made)
    kept = exporter.protect(made, order[:2])
    floats = [
        it.scope
        for it in read_operations(kept.content)
        if it.kind in WEIGHTED and it.weight_type == "FLOAT32"
    ]
    assert set(floats) == set(order[:2])
    assert kept.protected == tuple(order[:2])


def test_protected_layers_of_integers_get_sixteen_bits(exporter):
    made = exporter.convert("full_int8")
    scope = layers(made.float_model, made.recipe)[1]
    kept = exporter.protect(made, [scope])
    wide = [it for it in read_operations(kept.content) if it.scope == scope]
    assert [it.precision for it in wide] == ["int16"]


def drops(top1s, monkeypatch):
    """Lets the judge see these losses, one after the other."""
    losses = iter(top1s)

    def judge(exporter, max_drop):
        def it(made, latency_ms):
            drop = next(losses)
            count = len(made.protected)
            top1, holds = 1 - drop / 100, drop <= max_drop
            return budget.Trial(made.recipe.name, count, top1, drop, latency_ms, holds)

        return it

    monkeypatch.setattr(budget, "_judge", judge)


def test_a_budget_protects_one_then_two_then_four(exporter, monkeypatch):
    drops([9.0, 5.0, 3.0, 0.4], monkeypatch)
    made, trials = budget.within(exporter, "dynamic_int8", 0.5)
    assert [trial.protected for trial in trials] == [0, 1, 2, 4]
    assert [trial.holds for trial in trials] == [False, False, False, True]
    assert len(made.protected) == 4
    assert "| dynamic_int8 | 4 |" in budget.table(trials)


def test_a_budget_that_holds_at_once_protects_nothing(exporter, monkeypatch):
    drops([0.1], monkeypatch)
    made, trials = budget.within(exporter, "dynamic_int8", 0.5)
    assert (made.protected, len(trials)) == ((), 1)


def test_a_budget_that_nothing_keeps_gives_no_file(exporter):
    made, trials = budget.within(exporter, "float16", -1.0)
    assert made is None
    assert not any(trial.holds for trial in trials)
    assert len(trials) > 2


def test_protecting_what_suffers_wins_top1_back(exporter):
    made, trials = budget.within(exporter, "int4", 0.0)
    assert trials[0].drop > 0
    assert made is None or trials[-1].drop <= 0
    assert trials[-1].drop < trials[0].drop


def test_a_budget_is_judged_on_images_of_choice(exporter):
    import dataclasses

    splits = exporter.splits
    # Labels that nothing meets: judged on them, the Keras model itself has no top-1.
    wrong = splits.report.map(lambda images, labels: (images, (labels + 1) % 3))
    exporter.splits = dataclasses.replace(splits, report=wrong)
    _, trials = budget.within(exporter, "float32", 0.0)
    assert trials[0].top1 == 1.0
    assert trials[0].holds, "no loss keeps to a budget of none"


def test_the_fastest_that_holds_is_taken(exporter, monkeypatch):
    order = list(QUANTIZATION_RECIPES)
    drops(
        [0.0 if name in ("float32", "dynamic_int8") else 2.0 for name in order],
        monkeypatch,
    )
    speeds = {name: float(index) for index, name in enumerate(reversed(order))}
    monkeypatch.setattr(budget, "_latencies", lambda made, image: speeds)
    made, trials = budget.fastest(exporter, 0.5)
    assert made.recipe.name == "dynamic_int8", "float32 is slower, the rest lose more"
    assert [trial.latency_ms for trial in trials] == sorted(speeds.values())


def test_a_budget_needs_labels(tiny, pixels):
    exporter = Exporter(build_vit(tiny()), pixels)
    with pytest.raises(ValueError, match="needs images with labels"):
        budget.within(exporter, "dynamic_int8", 1.0)
