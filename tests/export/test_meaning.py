"""What a Keras model's numbers mean is found, said or asked for."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_vit_export import export
from keras_vit_export.keras_classifier import KerasClassifier
from shades import behind, by_brightness

from keras_vit import build_vit
from keras_vit.features import feature_model


def ending(last):
    """A model whose four features go through `last`."""
    body = behind(layers.Rescaling(1 / 255))
    return keras.Model(body.input, last(body.layers[-2].output))


def several_units(x):
    units = [layers.Dense(1, activation="sigmoid")(x) for _ in range(3)]
    return layers.Concatenate()(units)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (several_units, "do not exclude"),
        (lambda x: keras.ops.sigmoid(layers.Dense(3)(x)), "do not exclude"),
        (lambda x: keras.ops.hard_sigmoid(layers.Dense(3)(x)), "do not exclude"),
        (lambda x: layers.UnitNormalization()(layers.Dense(3)(x)), "an embedding"),
        (lambda x: layers.Dense(3)(x), "unknown meaning"),
    ],
)
def test_what_is_no_classifier_is_refused_by_name(last, words, pixels):
    model = ending(last)
    with pytest.raises(ValueError, match=words):
        export(model, "float32", pixels)
    # What would have been claimed of it:
    with pytest.raises(ValueError, match=r"random pixels show \"class \d \d+\.\d%"):
        KerasClassifier(model).probabilities(pixels)


def test_logarithms_of_probabilities_are_logits(pixels):
    classifier = KerasClassifier(
        ending(lambda x: keras.ops.log_softmax(layers.Dense(3)(x)))
    )
    rows = classifier.probabilities(pixels)
    np.testing.assert_allclose(rows, np.exp(classifier.output(pixels)), atol=1e-6)


def test_features_are_no_classes(tiny, randomize, pixels):
    model = feature_model(randomize(build_vit(tiny())))
    with pytest.raises(ValueError, match="unknown meaning"):
        export(model, "float32", pixels)


@pytest.mark.parametrize(
    ("loss", "known"),
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), True),
        (keras.losses.CategoricalCrossentropy(from_logits=True), True),
        ([keras.losses.CategoricalCrossentropy(from_logits=True)], True),
        ("sparse_categorical_crossentropy", False),
        ("mse", "numbers of no classes: its loss is mse"),
        (keras.losses.BinaryCrossentropy(from_logits=True), "do not exclude"),
    ],
)
def test_a_loss_says_what_numbers_are(loss, known, tmp_path):
    model = by_brightness(last=None)
    model.compile(loss=loss)
    model.save(tmp_path / "model.keras")
    from keras_vit_export.any_classifier import open_classifier

    for again in (
        lambda: KerasClassifier(model),
        lambda: open_classifier(tmp_path / "model.keras"),
    ):
        if isinstance(known, str):
            with pytest.raises(ValueError, match=known):
                again()
        else:
            assert again().meaning.is_known == known


def test_logits_are_known_by_images_or_because_it_is_said(shades, pixels):
    model = by_brightness(0.0, 1 / 255, last=None)
    _, report = export(model, "float32", shades)
    assert "logits: the largest is 100.0% right" in report.output
    _, report = export(model, "float32", pixels, logits=True)
    assert "it was said" in report.output
    shuffled = shades.map(lambda images, labels: (images, (7 * labels + 1) % 2))
    with pytest.raises(ValueError, match="unknown meaning"):
        export(model, "float32", shuffled)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda x: 100 * keras.ops.softmax(x), "rows sum to 100"),
        (lambda x: keras.ops.tanh(x / 100), "a tanh or a cosine keeps"),
    ],
)
def test_images_do_not_make_logits_of_what_speaks_against_it(last, words, shades):
    right = by_brightness(0.0, 1 / 255, last=None)
    model = keras.Model(right.input, last(right.output))
    with pytest.raises(ValueError, match=words):
        export(model, "float32", shades)


def test_probabilities_are_no_logits_whatever_is_said(tiny):
    for model in (by_brightness(), build_vit(tiny(head_output="softmax"))):
        with pytest.raises(ValueError, match="probabilities already"):
            KerasClassifier(model, logits=True)
