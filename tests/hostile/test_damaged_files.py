"""Damaged images and models: one line each, no crash, no hang."""

import random

import pytest
from keras_vit_device.tflite import metadata

from tests.hostile.damage import (
    ROOT,
    bad,
    bombs,
    damaged,
    mutated,
    outcomes,
    whole_images,
)

DIGITS = ROOT / "models/digits.tflite"
PICTURE = ROOT / "models/3-shows-3.png"


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.long)])
def test_no_damaged_image_does_more_than_a_line(count, tmp_path):
    rng, paths = random.Random(0), []
    sources = whole_images()
    files = [*sources, *bombs()]
    for index in range(count):
        suffix, content = sources[index % len(sources)]
        files.append((suffix, mutated(content, rng)))
    for index, (suffix, content) in enumerate(files):
        paths.append(tmp_path / f"{index}.{suffix}")
        paths[-1].write_bytes(content)
    pairs = [(DIGITS, path) for path in paths]
    found = outcomes(pairs, tmp_path)
    assert not bad(pairs, found)
    assert found[: len(sources)] == ["answered"] * len(sources)
    assert found.count("refused") > count / 4


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.long)])
def test_no_damaged_model_does_more_than_a_line(count, tmp_path):
    content = DIGITS.read_bytes()
    read = metadata.read(content)
    flat = content[: content.index(b"PK\3\4")]
    whole = metadata.attach(flat, read.class_names, read.contract)
    models = damaged(whole, count, random.Random(0), tmp_path)
    pairs = [(model, PICTURE) for model in models]
    found = outcomes(pairs, tmp_path)
    assert not bad(pairs, found)
    assert found[0] == "answered"
    assert found.count("refused") >= 0.95 * count
