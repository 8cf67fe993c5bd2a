import math

import numpy as np
import pytest

from keras_vit import layers


def test_sinusoidal_positions_are_the_papers_formula():
    got = layers.sinusoidal_1d(7, 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert got[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert got[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_a_shift_of_sinusoidal_positions_is_one_rotation():
    table = layers.sinusoidal_1d(20, 8)
    near, far = table[:4], table[10:14]
    rotation = np.linalg.lstsq(table[:-5], table[5:], rcond=None)[0]
    np.testing.assert_allclose(near @ rotation, table[5:9], atol=1e-8)
    np.testing.assert_allclose(far @ rotation, table[15:19], atol=1e-8)


def test_sincos_positions_are_the_formula():
    got = layers.sincos_2d(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (i / 1) for i in range(2)]
                expected += [math.sin(a) for a in angles]
                expected += [math.cos(a) for a in angles]
            np.testing.assert_allclose(got[3 * row + column], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "table"),
    [
        (layers.Sinusoidal1DPositions(), layers.sinusoidal_1d(6, 8)),
        (layers.SinCos2DPositions((2, 3)), layers.sincos_2d(2, 3, 8)),
    ],
)
def test_fixed_positions_add_their_table_and_own_no_weight(layer, table, rng):
    tokens = rng.normal(size=(2, 6, 8))
    np.testing.assert_allclose(layer(tokens.astype("float32")), tokens + table, 1e-5)
    assert not layer.weights


def test_learned_positions_are_added(rng, randomize):
    tokens = rng.normal(size=(2, 6, 8)).astype("float32")
    layer = layers.LearnedPositions()
    layer(tokens)
    randomize(layer)
    expected = tokens + layer.get_weights()[0]
    np.testing.assert_allclose(layer(tokens), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.sinusoidal_1d(3, 5), "width=5"),
        (lambda: layers.sincos_2d(2, 2, 6), "width=6"),
        (
            lambda: layers.SinCos2DPositions((2, 2))(np.zeros((1, 6, 8), "float32")),
            r"grid=\(2, 2\), 6 patches",
        ),
    ],
)
def test_impossible_positions_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
