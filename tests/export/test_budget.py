"""A budget is kept by protecting what suffers most, or nothing is given."""

import dataclasses

import numpy as np
import pytest
from keras_vit_device.tflite.operations import WEIGHTED, read_operations
from keras_vit_export import budget
from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES, Rule
from keras_vit_export.quantization.sensitivity import layers, only

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


def test_layers_come_kind_by_kind_the_worst_first(exporter):
    made = exporter.convert("dynamic_int8")
    damage = exporter.damage(made)
    # qkv and output, hidden and output, in two blocks; patches and head; and the
    # last block's query, which is made for fewer tokens.
    count = 4 * 2 + 2 + 1
    order = damage.first(count)
    assert sorted(order) == sorted(damage.layers) and len(order) == count
    assert order == [scope for kind in damage.kinds for scope in order if scope in kind]
    assert len(damage.kinds) == 8
    together = [damage.snr_db(kind) for kind in damage.kinds]
    assert together == sorted(together)
    for kind in damage.kinds:
        alone = [damage.snr_db([scope]) for scope in order if scope in kind]
        assert alone == sorted(alone)
    images, scope = exporter.splits.compared, order[0]
    name = logits_name(read_operations(made.float_model))
    exact = read_all(made.float_model, [name], images)[name]
    moments = exporter.floats.moments(made.float_model) if made.rounded else None
    recipe = only(made.recipe, [scope])
    alone = quantize(made.float_model, recipe, moments=moments)
    got = snr_db(exact, read_all(alone, [name], images)[name])
    assert got == pytest.approx(damage.snr_db([scope]))


def test_only_as_many_layers_are_swept_as_are_asked_for(exporter, monkeypatch):
    damage = exporter.damage(exporter.convert("dynamic_int8"))
    tried = []
    monkeypatch.setattr(damage, "snr_db", lambda scopes: tried.append(1) or len(tried))
    assert len(damage.first(1)) == 1
    kinds = len(damage.kinds)
    assert len(tried) == kinds + len(damage.kinds[0])
    damage.first(1)
    assert len(tried) == kinds + len(damage.kinds[0])
    damage.first(len(damage.layers))
    assert len(tried) == kinds + len(damage.layers)


def test_a_sweep_quantizes_one_layer_alone(exporter):
    made = exporter.convert("dynamic_int8")
    scope = layers(made.float_model, made.recipe)[1]
    content = quantize(made.float_model, only(made.recipe, [scope]))
    narrow = [it.scope for it in read_operations(content) if it.weight_type == "INT8"]
    assert narrow == [scope]


def test_protected_layers_stay_in_floats_and_only_they(exporter):
    made = exporter.convert("dynamic_int8")
    order = exporter.damage(made).first(2)
    kept = exporter.protect(made, order)
    floats = [
        it.scope
        for it in read_operations(kept.content)
        if it.kind in WEIGHTED and it.weight_type == "FLOAT32"
    ]
    assert set(floats) == set(order)
    assert kept.protected == tuple(order)


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
        def it(made):
            drop = next(losses)
            count = len(made.protected)
            top1, holds = 1 - drop / 100, drop <= max_drop
            return budget.Trial(made.recipe.name, count, top1, drop, 0.25, holds)

        return it

    monkeypatch.setattr(budget, "_judge", judge)


def test_a_budget_protects_one_then_two_then_four(exporter, monkeypatch):
    drops([9.0, 5.0, 3.0, 0.4], monkeypatch)
    heard = []
    made, trials = budget.within(exporter, "dynamic_int8", 0.5, heard.append)
    assert [str(it) for it in heard] == [str(it) for it in trials]
    assert str(heard[2]) == (
        "dynamic_int8, 2 layers protected: 3.00 +- 0.25 points of top-1 lost"
    )
    assert heard[0].latency_ms is None and trials[0].latency_ms > 0
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


def test_protecting_what_suffers_wins_top1_back(exporter, monkeypatch):
    # As they are, four bits lose nothing here.
    rules = Rule(operation="*"), Rule(operation="*", weights=4, one_scale=True)
    coarse = dataclasses.replace(QUANTIZATION_RECIPES["int4"], rules=rules)
    monkeypatch.setitem(QUANTIZATION_RECIPES, "int4", coarse)
    candidates = exporter._candidates
    monkeypatch.setattr(candidates, "_rounded_if_better", candidates._scored)
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
    order = list(reversed(QUANTIZATION_RECIPES))
    drops(
        [0.0 if name in ("float32", "dynamic_int8") else 2.0 for name in order],
        monkeypatch,
    )
    speeds = {name: float(index) for index, name in enumerate(order)}
    monkeypatch.setattr(
        budget, "_latencies", lambda made, _: [speeds[it.recipe.name] for it in made]
    )
    made, trials = budget.fastest(exporter, 0.5)
    assert made.recipe.name == "dynamic_int8", "float32 is slower, the rest lose more"
    tried = order[: order.index("dynamic_int8") + 1]
    assert [trial.recipe for trial in trials] == tried, "no slower one is"
    assert [trial.latency_ms for trial in trials] == [speeds[it] for it in tried]


def test_a_budget_needs_labels(tiny, pixels):
    exporter = Exporter(build_vit(tiny()), pixels)
    with pytest.raises(ValueError, match="needs images with labels"):
        budget.within(exporter, "dynamic_int8", 1.0)


def test_points_lost_have_their_paired_interval(exporter, monkeypatch):
    """Of 100 images, 3 are lost and 1 is won: differences of 1, -1 and 0."""
    labels = np.zeros(100, int)
    rows = {name: np.tile([1.0, 0.0], (100, 1)) for name in ("keras", "it")}
    rows["keras"][3] = rows["it"][:3] = [0.0, 1.0]
    monkeypatch.setattr(
        budget, "predict", lambda given, _: (labels, {it: rows[it] for it in given})
    )
    trial = budget._judge(exporter, 1.0)(exporter.convert("float32"))
    assert (trial.drop, trial.top1, trial.holds) == (2.0, 0.97, False)
    lost = np.array([1, 1, 1, -1, *[0] * 96])
    assert trial.interval == pytest.approx(100 * 1.96 * lost.std() / 10)
    line = budget.table([dataclasses.replace(trial, latency_ms=1.0)]).splitlines()[-1]
    assert f"| 2.00 ± {trial.interval:.2f} | 1.00 | too much |" in line
