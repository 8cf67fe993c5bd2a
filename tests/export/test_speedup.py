"""The search for a faster model: what it tries, what it keeps, what it takes."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from commands import complaint
from keras_vit_cli.main import main
from keras_vit_device.classifier import Classifier
from keras_vit_export.speedup import search
from keras_vit_export.speedup.trials import Store, Trial, front, table
from keras_vit_export.speedup.variants import Variant, cost, find_variants
from PIL import Image

import keras_vit
from keras_vit import config_of
from tests.conftest import pictures_off

DIGITS = pathlib.Path(__file__).parents[2] / "models/digits.keras"
POOLED = Variant(reduce_tokens=((0, "pool", 2),))
# Of the digits: as it is it loses nothing, too much, and no file can be had of the last.
FEW = [POOLED, Variant(image_size=(6, 6)), Variant(image_size=(4, 4))]


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (32, 48), "depth": 4},
        {"image_size": (24, 24), "stem": (4,), "class_token": False, "pool": "mean"},
        {"image_size": (16, 16), "depth": 3, "reduce_tokens": ((0, "pool", 2),)},
    ],
)
def test_every_variant_is_a_model_that_computes_less(fields, tiny, randomize):
    config = tiny(**fields)
    model = randomize(keras_vit.build_vit(config))
    variants = find_variants(config)
    kinds = {"size"} if config.reduce_tokens else {"size", "prune"}
    assert kinds <= {it.kind for it in variants}
    assert len({str(it) for it in variants}) == len(variants)
    for variant in variants:
        changed = config_of(variant.apply(model))
        assert changed == variant.config(config)
        assert cost(changed) < cost(config)
        for name, value in dataclasses.asdict(variant).items():
            if value is None:
                assert getattr(changed, name) == getattr(config, name)


def test_variants_say_what_they_are():
    variant = Variant(
        image_size=(20, 24), reduce_tokens=((1, "prune", 0.5), (2, "prune", 0.5))
    )
    assert str(variant) == "20 x 24 px, keep 0.5 in blocks 2, 3"
    assert variant.kind == "size+prune"
    assert str(POOLED) == "pool 2 x 2 in block 1" and POOLED.kind == "pool"
    assert str(Variant(patch_size=8)) == "patches of 8 px"
    assert str(Variant()) == "as it is" and Variant().kind == ""
    assert POOLED.beside(Variant(image_size=(4, 4))).kind == "size+pool"
    again = json.loads(json.dumps(dataclasses.asdict(variant)))
    assert Variant.of(again) == variant


def trial(ms, top1, **fields):
    fields = {"variant": POOLED, "recipe": "float32", "epochs": 0, **fields}
    drop = round(100 * (0.9 - top1), 6)
    return Trial(
        top1=top1, drop=drop, interval=0.1, latency_ms=ms, ratio=4 / ms, **fields
    )


def test_the_front_is_what_nothing_beats_in_both():
    trials = [trial(4, 0.9), trial(2, 0.8), trial(3, 0.7), trial(1, 0.5)]
    assert [it.latency_ms for it in front(trials)] == [1, 2, 4]
    lines = table(trials, 12.0).splitlines()
    assert [line.endswith("* |") for line in lines[2:]] == [True, True, False, True]
    assert "| 4.00 | too much * |" in lines[2] and "holds" in lines[5]


def test_of_those_that_reach_a_target_the_most_accurate_and_then_fastest_is_taken():
    found = search.Search.__new__(search.Search)  # what it was made of is not needed
    found._max_drop = 2.0
    found.trials = [trial(1, 0.8), trial(2, 0.89), trial(4, 0.9), trial(3, 0.9)]
    assert found.choose().latency_ms == 2
    assert found.choose(lambda it: it.ratio >= 1).latency_ms == 3
    assert found.choose(lambda it: it.ratio > 1.5).latency_ms == 2
    assert found.choose(lambda it: it.ratio > 2) is None


def test_a_store_gives_back_what_it_was_given_and_knows_its_search(tmp_path):
    store = Store(tmp_path, {"model": "a", "seed": 0})
    store.add(trial(1, 0.5, epochs=3), b"file")
    again = Store(tmp_path, {"model": "a", "seed": 0})
    found = again.find(POOLED, 3)
    assert found == trial(1, 0.5, epochs=3) and again.content(found) == b"file"
    assert again.find(POOLED, 0) is None and again.find(Variant(), 3) is None
    with pytest.raises(ValueError, match="a search with another seed. Received: 1"):
        Store(tmp_path, {"model": "a", "seed": 1})


@pytest.fixture
def speedup(tmp_path, monkeypatch, capfd, without_xla):
    """A function that runs the command on the digits, trying few variants."""
    monkeypatch.setattr(search, "find_variants", lambda config: FEW)
    # All recipes are tried where `export --recipe auto` is tested.
    quick = lambda exporter, max_drop: (exporter.make_plain("dynamic_int8"), [])
    monkeypatch.setattr(search, "fastest", quick)

    def run(*options):
        fixed = ["--dataset", "digits", "--output", str(tmp_path / "found")]
        with pictures_off():  # of runs
            status = main(["speedup", str(DIGITS), *fixed, *map(str, options)])
        return status, capfd.readouterr().out, tmp_path / "found"

    return run


def test_the_fastest_that_holds_is_taken_and_a_search_goes_on(speedup, monkeypatch):
    add, added = Store.add, []

    def add_two(store, found, content):
        add(store, found, content)
        added.append(found.name)
        if len(added) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", add_two)
    status, _, folder = speedup()
    assert status == 130 and not (folder / "model.tflite").exists()
    monkeypatch.setattr(Store, "add", add)
    status, out, _ = speedup("--continue")
    assert status == 0
    assert "pool 2 x 2 in block 1: " not in out  # that was tried before
    assert "6 x 6 px: " in out and "--train gives" in out
    stored = json.loads((folder / "trials.json").read_text())["trials"]
    assert [it["epochs"] for it in stored] == [0] * 4
    # Smaller images lose ten points and more.
    assert "Taken: pool 2 x 2 in block 1, " in out
    figures = json.loads((folder / "model.tflite.json").read_text())
    assert figures["chosen"]["drop"] <= 0.5 and figures["points_lost"] < 1
    model = keras_vit.files.load_model(folder / "model.keras")
    assert config_of(model).reduce_tokens == POOLED.reduce_tokens
    file = Classifier(folder / "model.tflite")
    assert file.self_test is not None
    with Image.open(folder / "front.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_what_loses_too_much_is_trained_each_kind_until_one_fails(speedup):
    status, out, folder = speedup("--train", "--epochs", 1, "--max-drop", 3)
    assert status == 0
    stored = json.loads((folder / "trials.json").read_text())["trials"]
    trained = [it for it in stored if it["epochs"]]
    sizes = [it["variant"]["image_size"] for it in trained]
    assert sizes[0] == [6, 6] and sizes[1:] in ([], [[4, 4]])
    assert (len(sizes) == 1) == (trained[0]["drop"] > 3)
    before = next(it for it in stored if it["variant"]["image_size"] == [6, 6])
    assert trained[0]["drop"] < before["drop"] - 3
    assert (folder / "trained/6-x-6-px/model.keras").exists()
    assert "6 x 6 px, 1 epoch: " in out and "--train gives" not in out


def test_a_target_that_nothing_reaches_leaves_the_front_alone(speedup, monkeypatch):
    monkeypatch.setattr(search, "find_variants", lambda config: [POOLED])
    status, out, folder = speedup("--target", "50x")
    assert status == 3
    assert "Not written: nothing reaches --target 50x and keeps to" in out
    assert (folder / "front.png").exists()
    assert not [*folder.glob("model.*")]


def test_mistakes_are_told_in_one_line(tmp_path, capfd):
    fixed = ["--dataset", "digits", "--output", tmp_path / "found"]
    for target in ("fast", "0x", "2y"):
        line = complaint(capfd, "speedup", DIGITS, *fixed, "--target", target)
        assert "--target must be how many times as fast" in line and target in line
    line = complaint(capfd, "speedup", "models/digits.tflite", *fixed)
    assert "A .keras file is needed" in line
    other = tmp_path / "other.keras"
    import keras

    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    ).save(other)
    assert "made by build_vit" in complaint(capfd, "speedup", other, *fixed)
    assert not (tmp_path / "found").exists()
