"""Every change of RandAugment goes as far as its paper says, and both ways."""

import keras
import numpy as np
import pytest

from keras_vit.training.augmentation.rand_augment import RandAugment

COUNT = 200


@pytest.fixture(scope="module")
def photo():
    """A smooth picture of all brightnesses, so that little changes change little."""
    y, x, colour = np.mgrid[:24, :24, :3]
    return np.round(128 + 64 * np.sin(y / 5 + colour) * np.cos(x / 4)).astype("float32")


def changed(index, strength, image):
    """An image after one change of the list, drawn `COUNT` times."""
    keras.utils.set_random_seed(0)
    change = RandAugment(strength).changes[index]
    return np.asarray(change(np.stack([image] * COUNT), training=True))


def names():
    return [layer.name.rstrip("_0123456789") for layer in RandAugment(1.0).changes]


@pytest.mark.parametrize(
    "index",
    [
        i
        for i, name in enumerate(names())
        if name not in ("auto_contrast", "equalization")
    ],
    ids=lambda index: f"{index}-{names()[index]}",
)
def test_a_weak_change_changes_little(index, photo):
    weak, strong = (
        np.abs(changed(index, strength, photo) - photo).mean() for strength in (0.02, 1)
    )
    assert weak < 2.0
    assert index == 0 or strong > 2 * weak


def spot(place, side=41):
    """A bright spot in a black square."""
    image = np.zeros((side, side, 3), "float32")
    image[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2] = 255.0
    return image


def centres(images):
    """Where the light is, `(count, 2)` as (y, x), seen from the middle."""
    places = np.arange(images.shape[1]) - (images.shape[1] - 1) / 2
    light = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    return np.stack([light.sum(axis=2) @ places, light.sum(axis=1) @ places], axis=1)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_images_turn_by_up_to_thirty_degrees_both_ways(strength):
    turn = names().index("random_rotation")
    y, x = centres(changed(turn, strength, spot((20, 32)))).T
    angles = np.rad2deg(np.arctan2(y, x))
    most = 30 * strength
    assert -most - 1 < angles.min() < -0.8 * most
    assert 0.8 * most < angles.max() < most + 1


def test_images_shift_by_up_to_045_of_a_side_both_ways_and_one_way_at_a_time():
    first = names().index("random_translation")
    for index, axis in ((first, 1), (first + 1, 0)):
        moved = centres(changed(index, 0.8, spot((20, 20)))) / 41
        assert -0.38 < moved[:, axis].min() < -0.28
        assert 0.28 < moved[:, axis].max() < 0.38
        np.testing.assert_allclose(moved[:, 1 - axis], 0.0, atol=0.01)


@pytest.mark.parametrize(
    "name, measure, least, most",
    [
        ("random_brightness", np.mean, -115, 115),
        ("random_contrast", np.std, 0.1, 1.9),
    ],
)
def test_light_changes_both_ways(name, measure, least, most, photo):
    seen = changed(names().index(name), 1.0, photo * 0.2 + 100)  # nothing is cut off
    seen = np.array([measure(image) for image in seen])
    before = measure(photo * 0.2 + 100)
    seen = seen - before if name == "random_brightness" else seen / before
    middle = (least + most) / 2
    assert least - 0.5 <= seen.min() < middle < seen.max() <= most + 0.5
    assert seen.max() - seen.min() > 0.8 * (most - least)


def test_four_bits_of_a_colour_are_left_at_least():
    ramp = np.repeat(np.arange(256.0, dtype="float32")[None, :, None], 3, axis=2)
    left = changed(names().index("random_posterization"), 1.0, ramp)
    assert {len(np.unique(image)) for image in left} == {16, 32, 64, 128, 256}


def test_two_changes_are_made_of_all(photo):
    """Turned and darkened, for instance; and outside of training none."""
    keras.utils.set_random_seed(0)
    layer = RandAugment(1.0)
    batch = np.stack([photo] * 2)
    seen = [np.asarray(layer(batch, training=True)) for _ in range(20)]
    assert len({images.tobytes() for images in seen}) > 15
    np.testing.assert_array_equal(layer(batch, training=False), batch)
    assert RandAugment.from_config(layer.get_config()).strength == 1.0
