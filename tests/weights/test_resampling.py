"""Resizing of positions and patches against other people's code and its definition."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_vit.resampling import POSITION_MODES, resize_patches, resize_positions


def resized(positions, grid, new_grid, mode):
    got = resize_positions(positions, grid, new_grid, mode)
    return got.reshape(*new_grid, -1)


@pytest.mark.parametrize("new_grid", [(7, 9), (3, 2), (1, 4)])
def test_linear_is_scipys_zoom(new_grid, rng):
    positions = rng.normal(size=(1, 20, 3)).astype("float32")
    image = positions.reshape(4, 5, 3)
    factors = (new_grid[0] / 4, new_grid[1] / 5, 1)
    expected = ndimage.zoom(image, factors, order=1)
    got = resized(positions, (4, 5), new_grid, "linear")
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_bicubic_with_antialias_is_tensorflows(rng):
    """Keys' kernel with a = -0.5; TensorFlow's is the same, edges included."""
    positions = rng.normal(size=(1, 64, 3)).astype("float32")
    image = positions.reshape(1, 8, 8, 3)
    for new_grid in ((5, 3), (12, 16)):
        expected = tf.image.resize(image, new_grid, "bicubic", antialias=True)[0]
        got = resized(positions, (8, 8), new_grid, "bicubic_antialias")
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("mode", POSITION_MODES)
def test_the_same_grid_changes_nothing(mode, rng):
    positions = rng.normal(size=(1, 6, 3)).astype("float32")
    assert resize_positions(positions, (2, 3), (2, 3), mode) is positions


@pytest.mark.parametrize("mode", POSITION_MODES)
def test_a_constant_stays_and_a_ramp_goes_on_rising(mode):
    constant = np.full((1, 16, 2), 3.0, "float32")
    for new_grid in ((7, 5), (3, 2)):
        got = resize_positions(constant, (4, 4), new_grid, mode)
        np.testing.assert_allclose(got, 3.0, atol=1e-5)
    ramp = np.repeat(np.arange(6.0), 2).reshape(1, 12, 1)
    for rows in (4, 11):
        got = resized(ramp, (6, 2), (rows, 2), mode)[:, 0, 0]
        assert (np.diff(got) > -0.1).all()
        assert got[-1] - got[0] > 4


def keys(x, a=-0.75):
    """Keys' kernel as PyTorch has it, written from its equation 4."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(
    ("mode", "scale", "first"),
    [
        ("bicubic", 8 / 14, 0.5 * 8 / 14 - 0.5),
        ("dinov2", 8 / 14.1, 0.5 * 8 / 14.1 - 0.5),
        ("bicubic_corners", 7 / 13, 0.0),
    ],
)
def test_each_new_position_is_keys_mean_of_four_old_ones(mode, scale, first):
    """DINOv2's code adds 0.1 to the new number before it divides by it."""
    old = np.eye(8, dtype="float32").reshape(1, 8, 8)
    got = resize_positions(old, (8, 1), (14, 1), mode)[0]
    for new in (6, 7):  # whose four neighbours are all inside
        centre = new * scale + first
        expected = [keys(centre - row) for row in range(8)]
        np.testing.assert_allclose(got[new], expected, atol=1e-6)


def test_dinov2_and_bicubic_differ_by_the_tenth(rng):
    positions = rng.normal(size=(1, 16, 2)).astype("float32")
    first, second = (
        resize_positions(positions, (4, 4), (7, 7), mode)
        for mode in ("bicubic", "dinov2")
    )
    assert 1e-4 < np.abs(first - second).max() < 0.5


@pytest.mark.parametrize("side", [3, 6, 9])
def test_larger_patches_see_the_same_in_a_larger_image(side, rng):
    """<B x, pinv(B^T) w> = <x, w>, exactly where the image gets larger."""
    kernel = rng.normal(size=(3, 3, 2, 4)).astype("float32")
    patch = rng.normal(size=(1, 3, 3, 2)).astype("float32")
    larger = tf.image.resize(patch, (side, side), "bilinear").numpy()
    before = np.einsum("bijc,ijcd->bd", patch, kernel)
    after = np.einsum("bijc,ijcd->bd", larger, resize_patches(kernel, side))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_smaller_patches_have_the_least_squares_weights(rng):
    kernel = rng.normal(size=(4, 4, 1, 1)).astype("float32")
    eye = np.eye(16).reshape(16, 4, 4, 1).astype("float32")
    resize = tf.image.resize(eye, (2, 2), "bilinear").numpy().reshape(16, 4).T
    expected = np.linalg.pinv(resize.T) @ kernel.reshape(16)
    np.testing.assert_allclose(resize_patches(kernel, 2).ravel(), expected, atol=1e-5)
