import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit import pictures
from keras_vit.training.callbacks import History
from keras_vit.training.logs import draw_training_page
from tests.conftest import events_in


def test_the_logs_hold_the_history_and_a_page_of_training_images(
    tiny, stripes, rng, tmp_path, without_xla
):
    model = keras_vit.build_vit(tiny(num_classes=2, depth=1))
    recipe = keras_vit.TrainingRecipe(epochs=3, learning_rate=1e-3, warmup=0.0)
    data = stripes(rng).load(batch_size=16)
    run = keras_vit.train(model, data, recipe, output=tmp_path / "run", verbose=0)
    trained = events_in(tmp_path / "run/logs/train")
    validated = events_in(tmp_path / "run/logs/validation")
    assert trained.keys() - {"training images"} == {
        "loss",
        "accuracy",
        "learning rate",
        "images a second",
    }
    assert validated.keys() == {"loss", "accuracy"}
    for events, prefix in ((trained, ""), (validated, "val_")):
        for name in ("loss", "accuracy"):
            curve = [events[name][step].simple_value for step in (1, 2, 3)]
            np.testing.assert_allclose(curve, run.history[prefix + name], rtol=1e-6)
    rates = [trained["learning rate"][step].simple_value for step in (1, 2, 3)]
    peak = recipe.learning_rate * 16 / recipe.batch_size
    np.testing.assert_allclose(rates, peak * np.array([0.75, 0.25, 0.0]), atol=1e-8)
    assert all(it.simple_value > 0 for it in trained["images a second"].values())
    image = trained["training images"][0].image.encoded_image_string
    assert image == (tmp_path / "run/training_images.png").read_bytes()
    assert tf.io.decode_png(image).shape[0] > 100


@pytest.mark.parametrize("mixed", [False, True])
def test_the_page_shows_what_the_recipe_makes_of_the_images(
    mixed, stripes, rng, tmp_path, monkeypatch
):
    pages = []
    monkeypatch.setattr(pictures, "draw_images", lambda *page: pages.append(page))
    data = stripes(rng).load(batch_size=16)
    recipe = keras_vit.TrainingRecipe(translation=0.0, mixup=0.8 * mixed)
    draw_training_page(data, recipe, 0, tmp_path / "page.png")
    images, captions, _, _ = pages[0]
    sample, labels = (part.numpy() for part in next(iter(data.sample)))
    rows = np.linspace(0, len(sample) - 1, len(images)).astype(int)
    if mixed:
        assert any("across" in caption and "down" in caption for caption in captions)
    else:
        np.testing.assert_array_equal(images, sample[rows])
        assert captions == [data.class_names[label] for label in labels[rows]]


def test_a_history_has_what_all_epochs_have(tmp_path):
    """Where a run goes on, a callback that adds a figure may be new, or gone."""
    path = tmp_path / "history.csv"
    history = History(path, [{"epoch": 1, "loss": 0.5, "gone": 1.0}])
    history.on_epoch_end(1, {"loss": 0.25, "new": 2.0})
    assert history.columns == {"epoch": [1, 2], "loss": [0.5, 0.25]}
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
