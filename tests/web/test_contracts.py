"""The page takes and refuses the files that Python does."""

import random

import pytest
from keras_vit_device.classifier import Classifier

from tests.hostile import contracts
from tests.hostile.saying import refusal

from .page import DIGITS

pytestmark = pytest.mark.devices


def test_the_page_takes_what_python_takes_and_refuses_what_it_refuses(
    page, serve, tmp_path
):
    page.open(serve(DIGITS))
    for index, (name, content, taken) in enumerate(contracts.cases()):
        path = tmp_path / f"{index}.tflite"
        path.write_bytes(content)
        page.choose(path, "model")
        assert bool(page.text("error")) != taken, (name, page.text("error"))


def test_contracts_that_were_changed_at_random_have_the_same_end(page, serve, tmp_path):
    page.open(serve(DIGITS))
    refused = 0
    for seed in range(1000):
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(contracts.changed(random.Random(seed)))
        page.choose(path, "model")
        reason = refusal(Classifier, path)
        assert bool(page.text("error")) == bool(reason), (
            seed,
            reason,
            page.text("error"),
        )
        refused += bool(reason)
    assert 100 < refused < 900
