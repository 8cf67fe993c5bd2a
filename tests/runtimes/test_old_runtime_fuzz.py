"""tflite_runtime verifies no file: damaged ones are refused before it reads them."""

import random

import numpy as np
import pytest
from PIL import Image

from tests.hostile.damage import bad, damaged, outcomes

from .runtimes import RUNTIMES

pytestmark = pytest.mark.devices

COUNT = 500


@pytest.fixture(scope="module")
def python():
    old = next(it for it in RUNTIMES if it.environment == "tflite-runtime")
    if old.missing:
        pytest.skip(f"{old.name}: {old.missing}")
    return old.python


@pytest.mark.parametrize("with_digest", [True, False])
def test_no_damaged_model_does_more_than_a_line(with_digest, made, python, tmp_path):
    content = (made / "dynamic_int8, compat.tflite").read_bytes()
    if not with_digest:  # as other exporters write it
        content = content[: content.index(b"PK\3\4")]
    models = damaged(content, COUNT, random.Random(0), tmp_path)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(picture)
    pairs = [(model, picture) for model in models]
    found = outcomes(pairs, tmp_path, python, patience=60)
    assert not bad(pairs, found)
    assert found[0] == "answered"
    if with_digest:
        assert found.count("refused") >= 0.95 * COUNT
