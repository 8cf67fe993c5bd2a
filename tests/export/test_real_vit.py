"""What integers keep of a real pretrained ViT-S/14, with outliers as training leaves them.

`make real-vit` fetches it; its head is random here (`benchmarks/real_vit.py` fits one).
"""

import pathlib

import keras
import numpy as np
import pytest
from keras_vit_export.activations import read_all
from keras_vit_export.exporter import Exporter

import keras_vit
from keras_vit.weights import read_checkpoint
from tests.data.test_sources import has_fashion

WEIGHTS = pathlib.Path(__file__).parents[2] / "runs/real_vit"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (WEIGHTS / "model.safetensors").exists(), reason="make real-vit"
    ),
    has_fashion,
]
# Decibels of the logits; with this head 27.8, 22.4, 22.4 and 18.4 were measured.
LEAST_DB = {"dynamic_int8": 26.5, "static_int8": 21.0, "full_int8": 21.0, "int4": 17.0}


@pytest.fixture(scope="module")
def exporter():
    model = read_checkpoint(WEIGHTS, image_size=98, num_classes=10).model
    head = model.get_layer("head").logits
    head.kernel.assign(keras.random.normal(head.kernel.shape, seed=0))
    config = keras_vit.config_of(model)
    return Exporter(model, keras_vit.load_data("fashion_mnist", config, batch_size=50))


@pytest.mark.parametrize("name", LEAST_DB)
def test_integers_keep_its_logits(name, exporter):
    made = exporter.convert(name)
    plain = exporter.make_plain(name)
    before, after = (
        exporter.floats.snr(made.float_model, it.content) for it in (plain, made)
    )
    assert after >= max(LEAST_DB[name], before + 1.0)
    # What was quantized is the Keras model, however it was turned.
    images = exporter.splits.compared[:4]
    output = exporter.origin.classifier.probabilities(images)
    name = "PartitionedCall:0"
    found = read_all(made.float_model, [name], images)[name][:, 0]
    np.testing.assert_allclose(found, output, atol=1e-4)
