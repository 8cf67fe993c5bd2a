import numpy as np
import pytest

from keras_vit import layers


def test_drop_path_zeroes_whole_images_and_scales_the_others():
    branch = np.ones((2000, 3, 2), "float32")
    dropped = np.asarray(layers.DropPath(0.25, seed=1)(branch, training=True))
    first = dropped[:, :1, :1]
    assert (dropped == first).all(), "an image's branch is dropped whole"
    assert set(np.unique(dropped).round(5)) == {0.0, np.float32(1 / 0.75).round(5)}
    # 2000 images at 0.25: five standard deviations are 0.05.
    assert abs((first == 0).mean() - 0.25) < 0.05


def test_drop_path_does_nothing_outside_training():
    branch = np.ones((8, 3, 2), "float32")
    np.testing.assert_array_equal(layers.DropPath(0.9)(branch), branch)


def test_layer_scale_multiplies_each_channel(rng, randomize):
    branch = rng.normal(size=(2, 3, 4)).astype("float32")
    layer = layers.LayerScale(0.1)
    np.testing.assert_allclose(layer(branch), 0.1 * branch, atol=1e-7)
    randomize(layer)
    expected = branch * layer.get_weights()[0]
    np.testing.assert_allclose(layer(branch), expected, atol=1e-6)


@pytest.mark.parametrize("layer", [layers.DropPath, layers.PatchDropout])
def test_a_rate_of_one_would_leave_nothing(layer):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\).*1.0"):
        layer(1.0)
