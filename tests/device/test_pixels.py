"""Files -> pixels, shared by training and the device."""

import numpy as np
import pytest
from keras_vit_device.pixels import fit_array, fit_image, open_image
from PIL import Image


@pytest.fixture
def noise(rng):
    return Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype("uint8"))


def test_stretch_averages_over_what_a_smaller_image_covers():
    stripes = np.tile(np.array([0, 100], "uint8"), (8, 8))  # 8 x 16, one pixel wide
    small = fit_image(Image.fromarray(stripes), (4, 4), 1)
    assert np.abs(small.astype(int) - 50).max() <= 6


def test_crop_keeps_proportions_and_the_middle():
    image = np.zeros((10, 30, 1), "uint8")
    image[:, 10:20] = 255
    rule = {"image_size": (10, 10), "channels": 1, "resize": "crop"}
    assert (fit_array(image, rule) == 255).all()
    assert fit_array(image, rule | {"resize": "stretch"}).min() == 0


@pytest.mark.parametrize(("width", "height"), [(233, 232), (450, 331), (331, 450)])
def test_crop_takes_images_of_which_rounding_would_take_too_much(width, height):
    image = Image.new("L", (width, height), 7)
    for size in ((224, 224), (160, 224), (224, 160)):
        assert (fit_image(image, size, 1, resize="crop") == 7).all()


def test_crop_part_is_of_each_side_around_the_middle(noise):
    even = noise.crop((0, 0, 40, 28))
    got = fit_image(even, (14, 20), 3, interpolation="nearest", crop=0.5)
    np.testing.assert_array_equal(got, np.asarray(noise)[7:21, 10:30])


def test_crop_of_a_wide_result_keeps_its_proportions(noise):
    got = fit_image(noise, (10, 40), 3, resize="crop", interpolation="nearest")
    np.testing.assert_array_equal(got, np.asarray(noise)[10:20])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_an_image_of_the_right_size_is_left_as_it_is(interpolation, noise):
    got = fit_image(noise, (30, 40), 3, interpolation=interpolation)
    np.testing.assert_array_equal(got, noise)


def test_interpolations_differ(noise):
    results = [
        fit_image(noise, (13, 17), 3, interpolation=interpolation).tobytes()
        for interpolation in ("nearest", "bilinear", "bicubic")
    ]
    assert len(set(results)) == 3


def test_grey_becomes_three_equal_channels_and_colour_its_brightness(noise):
    grey = fit_image(noise, (30, 40), 1)
    weights = np.asarray(noise) @ [0.299, 0.587, 0.114]
    assert np.abs(grey[..., 0] - weights).max() <= 1
    colour = fit_image(Image.fromarray(grey[..., 0]), (30, 40), 3)
    assert (colour == grey).all()


def test_other_channels_are_refused(noise):
    with pytest.raises(ValueError, match="channels=4"):
        fit_image(noise, (8, 8), 4)


def test_orientation_of_a_phone_is_respected(tmp_path):
    image = Image.fromarray(np.arange(6, dtype="uint8").reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter turn
    image.save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").size == (2, 3)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    deep = (np.arange(256, dtype="uint16") * 257).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    got = np.asarray(open_image(tmp_path / "deep.png"))
    np.testing.assert_array_equal(got.ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("1", "a.png", "L"),
        ("LA", "a.png", "L"),
        ("P", "a.gif", "RGB"),
        ("RGBA", "a.webp", "RGB"),
        ("CMYK", "a.jpg", "RGB"),
    ],
)
def test_other_modes_become_grey_or_rgb(mode, name, expected, tmp_path):
    Image.new(mode, (4, 4)).save(tmp_path / name)
    assert open_image(tmp_path / name).mode == expected


def test_what_cannot_be_read_is_an_os_error_with_its_name(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((4, 4), "float32")).save(tmp_path / "float.tif")
    Image.new("L", (100, 100)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("float.tif", "cut.png", "text.jpg", "none.png"):
        with pytest.raises(OSError, match=name):
            open_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match=r"whole\.png.*bomb"):
        open_image(tmp_path / "whole.png")


def test_an_image_that_memory_does_not_hold_is_an_os_error(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    Image.new("L", (4, 4)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(OSError, match=r"large\.png.*MemoryError"):
        open_image(tmp_path / "large.png")
