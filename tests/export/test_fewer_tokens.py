"""Models that go on with fewer tokens, exported: the same choice, in every recipe."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from covering import check_layout
from keras_vit_device.tflite.operations import read_operations
from keras_vit_export.activations import logits_name, read_all
from keras_vit_export.exporter import Exporter
from keras_vit_export.gpu import machine
from keras_vit_export.graph import inference
from keras_vit_export.graph.convert import convert_graph, read_origin
from keras_vit_export.graph.forward import logits
from keras_vit_export.graph.rewrites import REWRITES, rewrite
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.wording import details

from keras_vit import build_vit, layers
from keras_vit.attention import score_gaps

POOL = {"reduce_tokens": ((0, "pool", 2),)}
BOTH = {"reduce_tokens": ((0, "pool", 2), (1, "prune", 0.6), (2, "prune", 0.5))}
KINDS = {
    "token": {"num_registers": 2},
    "mean": {"pool": "mean", "class_token": False},
    "mean behind prefix tokens": {"pool": "mean", "num_registers": 1},
    "token and mean": {"pool": "token_and_mean"},
    "map": {"pool": "map"},
    "sequence": {"pool": "sequence", "class_token": False},
    "distilled": {"distillation_token": True},
}


@pytest.fixture
def make(tiny, randomize):
    """A function from fields to a model of 24 patches with random weights."""

    def model(**fields):
        return randomize(build_vit(tiny(depth=4, image_size=(16, 24), **fields)))

    return model


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (24, 16, 24, 3)).astype("uint8")


def difference(expected, got):
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


def apart(model, images):
    """The first of the images on which no two scores are nearly equal."""
    found = images[score_gaps(model, images) > 1e-4]
    assert len(found)
    return found[:1].astype("float32")


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_every_rewrite_leaves_the_choice_and_the_logits(
    fields, make, images, monkeypatch
):
    model = make(**fields, **BOTH)
    image = apart(model, images)
    expected = model.predict_on_batch(image)
    graph = inference.read(model)
    for names in ([], *([name] for name in REWRITES), list(REWRITES)):
        got = logits(rewrite(graph, names), tf.constant(image))
        assert difference(expected, got) <= 1e-5, names
    content = convert_graph(rewrite(graph))
    check_layout(content)
    name = logits_name(read_operations(content))
    assert difference(expected, read_all(content, [name], image)[name][0]) <= 3e-5
    monkeypatch.setattr(machine, "to_half", lambda x: np.asarray(x, np.float32))
    found = machine.Machine(content)(image[0])[name]
    assert difference(expected, found) <= 1e-4


def test_pooling_is_in_every_recipe(make, images):
    exporter = Exporter(make(**POOL), images)
    for name in QUANTIZATION_RECIPES:
        made = exporter.make_plain(name)
        snr = exporter.floats.layer_snr_db(made.float_model, made.content)
        assert min(snr.values()) > 10, name


def test_pruning_is_in_every_recipe_but_that_of_integers_alone(make, images):
    """Layers are compared token by token: each file has an order of its own."""
    exporter = Exporter(make(**BOTH), images)
    made, refused = exporter.convert_all(plain=True)
    assert made.keys() == QUANTIZATION_RECIPES.keys() - {"full_int8"}
    assert (
        "'full_int8' can't prune tokens (block_01_prune, block_02_prune)"
        in (refused["full_int8"])
    )
    for name in ("float16", "int16x8"):
        snr = exporter.floats.layer_snr_db(made[name].float_model, made[name].content)
        assert min(snr.values()) > 30, name  # some 10 in the order of each file


def test_scores_and_the_stream_stay_floats_in_static_integers(make, images):
    made = Exporter(make(**BOTH), images).make_plain("static_int8")
    found = [
        it
        for it in read_operations(made.content)
        if "_prune/" in it.scope or "_pool/" in it.scope
    ]
    assert {"TOPK_V2", "GATHER", "AVERAGE_POOL_2D"} <= {it.kind for it in found}
    assert all(it.outputs[0].startswith("block_") for it in found)
    assert not [it for it in found if it.kind in ("QUANTIZE", "DEQUANTIZE")]


def test_the_report_says_how_often_the_choice_is_within_rounding(make, images):
    flat = images.copy()
    flat[::4] = 99
    model = make(positions="sincos_2d", class_token=False, pool="mean", **BOTH)
    model.get_layer("positions").positions = np.zeros((1, 24, 8))
    exporter = Exporter(model, flat)
    _, reports = exporter.check({"float32": exporter.convert("float32")}, ("cpu",))
    assert reports["float32"].undecided == pytest.approx(0.25, abs=0.1)
    assert "another runtime may keep the other" in details(reports["float32"])
    exporter = Exporter(make(**POOL), images)
    _, reports = exporter.check({"float32": exporter.convert("float32")}, ("cpu",))
    assert reports["float32"].undecided is None


def test_a_model_that_chooses_otherwise_is_exported_as_it_is(make):
    class Least(layers.PruneTokens):
        def scores(self, weights):
            return -super().scores(weights)

    model = make(**BOTH)
    assert read_origin(model).graph is not None
    for layer in model.layers:
        if isinstance(layer, layers.PruneTokens):
            layer.__class__ = Least
    origin = read_origin(model)
    assert origin.graph is None and "computes something else" in origin.reason


def test_an_order_that_ends_the_model_elsewhere_is_seen(make, images):
    """The check itself: another amount in the graph is another function."""
    model = make(**BOTH)
    image = apart(model, images)
    graph = inference.read(model)
    steps = [dataclasses.replace(it, amount=0.9) for it in graph.prunings]
    branches = tuple(
        dataclasses.replace(it, reduction=steps[0])
        if it.reduction and it.reduction.block == 1
        else it
        for it in graph.branches
    )
    changed = graph.replace(branches=branches)
    got = logits(changed, tf.constant(image))
    assert difference(model.predict_on_batch(image), got) > 1e-3
