"""The model without our `train`: NumPy arrays, and as a part of a user's own model."""

import keras
import numpy as np

from keras_vit import build_vit


def patterns(rng, count=64):
    """Bright left or bright right, with noise: two classes that any model can learn."""
    labels = rng.integers(0, 2, count)
    images = rng.uniform(0, 100, (count, 8, 12, 3))
    for image, label in zip(images, labels, strict=True):
        image[:, 6 * label : 6 * label + 6] += 150
    return images.astype("uint8"), labels


def test_a_vit_is_compiled_and_fitted_on_numpy_arrays(tiny, rng):
    images, labels = patterns(rng)
    model = build_vit(tiny(num_classes=2, head_output="softmax"))
    model.compile(
        keras.optimizers.Adam(3e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(images, labels, epochs=20, batch_size=16, verbose=0)
    assert model.evaluate(*patterns(rng), verbose=0)[1] > 0.9


def test_a_vit_is_a_part_of_a_functional_model(tiny, rng, tmp_path):
    images, labels = patterns(rng)
    vit = build_vit(tiny(num_classes=2))
    backbone = keras.Model(vit.input, vit.get_layer("pool").output)
    photo = keras.Input((8, 12, 3))
    hour = keras.Input((1,))
    joined = keras.layers.Concatenate()([backbone(photo), hour])
    model = keras.Model([photo, hour], keras.layers.Dense(1)(joined))
    model.compile("adam", "mse")
    inputs = [images.astype("float32"), np.ones((64, 1), "float32")]
    before = [w.copy() for w in backbone.get_weights()]
    model.fit(inputs, labels.astype("float32"), verbose=0)
    moved = [
        not np.array_equal(b, a)
        for b, a in zip(before, backbone.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.9, "gradients reach the backbone"
    model.save(tmp_path / "mine.keras")
    again = keras.saving.load_model(tmp_path / "mine.keras")
    np.testing.assert_array_equal(
        again.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
    )
