import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit import layers


def test_scaling_is_the_formula(rng):
    x = rng.uniform(0, 255, (2, 3, 4, 2))
    mean, std = np.array([0.2, 0.4]), np.array([0.3, 0.5])
    got = layers.PixelScaling(mean.tolist(), std.tolist())(x.astype("float32"))
    np.testing.assert_allclose(got, (x / 255 - mean) / std, atol=1e-5)


def test_scaling_takes_integers():
    pixels = np.full((1, 1, 1, 1), 200, "uint8")
    got = layers.PixelScaling((0.5,), (0.5,))(pixels)
    np.testing.assert_allclose(got, (200 / 255 - 0.5) / 0.5, atol=1e-6)


def test_scaling_wants_a_mean_for_each_channel():
    with pytest.raises(ValueError, match=r"mean=\(0.5,\).*input shape"):
        layers.PixelScaling((0.5,), (0.5,))(np.zeros((1, 4, 4, 3), "float32"))


def test_patches_are_flattened_row_by_row_and_projected(rng, randomize):
    x = rng.normal(size=(2, 4, 6, 3))
    layer = layers.PatchEmbedding(5, 2)
    layer(x.astype("float32"))
    randomize(layer)
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    expected = np.stack(
        [
            x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(2, -1)
            @ kernel.reshape(-1, 5)
            + bias
            for r in range(2)
            for c in range(3)
        ],
        axis=1,
    )
    np.testing.assert_allclose(layer(x.astype("float32")), expected, atol=1e-5)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match="patch_size=3"):
        layers.PatchEmbedding(5, 3)(np.zeros((1, 4, 6, 3), "float32"))


def test_the_stem_is_convolution_relu_and_overlapping_maximum(rng, randomize):
    x = rng.normal(size=(1, 4, 4, 2))
    layer = layers.ConvStem((3,))
    layer(x.astype("float32"))
    randomize(layer)
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    conv = np.zeros((4, 4, 3))
    for r in range(4):
        for c in range(4):
            window = padded[0, r : r + 3, c : c + 3]
            conv[r, c] = np.maximum(np.tensordot(window, kernel, 3) + bias, 0)
    # "same" with stride 2 on an even side pads the end only.
    conv = np.pad(conv, ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    expected = np.array(
        [
            [conv[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((0, 1)) for c in range(2)]
            for r in range(2)
        ]
    )
    np.testing.assert_allclose(layer(x.astype("float32"))[0], expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(8, 6), (7, 5), (1, 2)])
def test_the_stem_is_the_same_function_in_training(sides, rng, randomize):
    images = keras.ops.convert_to_tensor(rng.normal(size=(2, *sides, 3)), "float32")
    layer = layers.ConvStem((4, 5))
    layer(images)
    randomize(layer)

    def output_and_gradients(training):
        with tf.GradientTape() as tape:
            output = layer(images, training=training)
            loss = tf.reduce_sum(tf.sin(output))
        return output, *tape.gradient(loss, layer.trainable_weights)

    for trained, used in zip(*map(output_and_gradients, (True, False)), strict=True):
        np.testing.assert_allclose(trained, used, rtol=1e-4, atol=1e-5)


def test_patch_dropout_keeps_prefix_tokens_and_the_order_of_patches():
    tokens = np.arange(20, dtype="float32").reshape(1, 20, 1).repeat(16, 0)
    layer = layers.PatchDropout(0.5, num_prefix_tokens=2, seed=1)
    kept = np.asarray(layer(tokens, training=True))[:, :, 0]
    assert kept.shape == (16, 2 + 9)
    assert (kept[:, :2] == [0, 1]).all()
    assert (np.diff(kept, axis=1) > 0).all()
    assert len({tuple(row) for row in kept}) > 1, "each image drops its own patches"
    np.testing.assert_array_equal(layer(tokens, training=False), tokens)


def test_patch_dropout_trains_inside_a_model(tiny):
    from keras_vit import build_vit

    model = build_vit(tiny(patch_dropout=0.5, pool="mean", num_registers=1))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(np.zeros((4, 8, 12, 3)), np.zeros(4), verbose=0)
