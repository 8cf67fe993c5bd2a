"""A Chromium, servers of models, and models for the page."""

import contextlib

import chromium
import numpy as np
import pytest
from keras_vit_cli import web

from .page import NAMES, ROOT, Page


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def webgpu_driver(tmp_path_factory):
    if reason := chromium.missing():
        pytest.skip(reason)
    profile = tmp_path_factory.mktemp("webgpu")
    with chromium.started(profile, webgpu=True) as driver:
        yield driver


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """An untrained colour model, with names and a cut of its own."""
    import keras
    from keras_vit_export.exporter import export

    from keras_vit import ViTConfig, build_vit

    keras.utils.set_random_seed(3)
    model = build_vit(
        ViTConfig(
            image_size=(32, 48),
            patch_size=8,
            width=32,
            depth=2,
            num_heads=2,
            mlp_dim=64,
            num_classes=len(NAMES),
            class_names=NAMES,
            resize="crop",
            interpolation="bicubic",
            crop=0.875,
        )
    )
    head = model.get_layer("head").logits
    rng = np.random.default_rng(3)
    head.kernel.assign(rng.normal(0, 1, head.kernel.shape))
    path = tmp_path_factory.mktemp("colours") / "colours.tflite"
    path.write_bytes(export(model, "float32")[0])
    return path


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    """The digits' model with bytes in and out."""
    from keras_vit_export.exporter import export

    from keras_vit import load_data
    from keras_vit.files import load_model

    model = load_model(ROOT / "models/digits.keras")
    content = export(model, "full_int8", load_data("digits"))[0]
    path = tmp_path_factory.mktemp("integers") / "integers.tflite"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def serve():
    """A function that serves models until the module's tests are over."""
    with contextlib.ExitStack() as servers:

        def start(*paths, **changed):
            site = web.page(web.FOLDER) | web.models(paths) | changed
            return servers.enter_context(chromium.served(site))

        yield start


@pytest.fixture
def page(driver):
    return Page(driver)


@pytest.fixture
def webgpu_page(webgpu_driver):
    return Page(webgpu_driver)
