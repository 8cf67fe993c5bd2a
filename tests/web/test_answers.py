"""What the page answers is what Python answers."""

import base64
import io

import numpy as np
import pytest
from foreign import SHAPE, converted, described, with_file
from keras_vit_device.pixel_scale import PixelScale
from keras_vit_device.pixels import fit_image, open_image
from keras_vit_export import Classifier
from PIL import Image

from .page import DIGITS, NAMES, digit_files, photo_files

pytestmark = pytest.mark.devices


def compare(page, model, paths):
    """Images of the same top-1 here and there, and the largest difference."""
    classifier = Classifier(model)
    same, differences = 0, []
    for path in paths:
        there, here = page.choose(path), classifier(path)
        assert not page.text("error")
        same += next(iter(there)) == next(iter(here))
        differences += [abs(there[name] - here[name]) for name in there]
    print(f"\n{model.name}: top-1 equal on {same}, largest difference of ", end="")
    print(f"probabilities {max(differences):.2g}, {page.text('time')}")
    return same, max(differences)


def test_digits_get_the_answers_of_python(page, serve, tmp_path):
    page.open(serve(DIGITS))
    assert page.driver.execute_script("return crossOriginIsolated")
    paths = [*digit_files(tmp_path, 40), *digit_files(tmp_path, 40, side=40)]
    same, difference = compare(page, DIGITS, paths)
    assert same == 80
    # Activations are quantized as they come: one that rounds otherwise is a step apart.
    assert difference < 0.01


def test_photos_get_the_answers_of_python(page, serve, colours, tmp_path):
    page.open(serve(colours))
    same, difference = compare(page, colours, photo_files(tmp_path, 60))
    assert same == 60
    assert difference < 1e-4
    assert page.driver.title != "run"


def test_a_model_of_bytes_gets_the_answers_of_python(page, serve, integers, tmp_path):
    page.open(serve(integers))
    same, difference = compare(page, integers, digit_files(tmp_path, 20, side=40))
    assert same == 20
    assert difference <= 1 / 256


def test_models_change_as_often_as_one_likes(page, serve, colours, integers, tmp_path):
    page.open(serve(DIGITS, colours, integers))
    (path,) = digit_files(tmp_path, 1)
    page.choose(path)
    counts = []
    for index in [1, 2, 0] * 5:
        page.driver.execute_script(
            "document.getElementById('results').replaceChildren();"
            "const models = document.getElementById('models');"
            f"models.selectedIndex = {index};"
            "models.dispatchEvent(new Event('change'));"
        )
        page.until(page.probabilities)
        counts.append(set(page.probabilities()) <= set(NAMES))
    assert counts == [True, False, False] * 5


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return base64.b64encode(stream.getvalue()).decode()


DECODE = """
const bytes = Uint8Array.from(atob(args[0]), (letter) => letter.charCodeAt(0));
const { openImage, fitImage } = await import("/pixels.js");
return [...fitImage(await openImage(new Blob([bytes])), args[1])];
"""


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pixels_are_those_of_pillow_to_the_last_bit(
    page, serve, rng, interpolation, resize, channels
):
    page.driver.get(serve().address)
    # Tall ones among them, of which Pillow shortens the height first.
    for height, width in [(8, 12), (7, 5), (61, 33), (60, 50), (30, 9), (40, 200)]:
        noise = rng.integers(0, 256, (height, width, 3)).astype("uint8")
        for crop in (1.0, 0.9):
            rule = {
                "image_size": [8, 12],
                "channels": channels,
                "resize": resize,
                "interpolation": interpolation,
                "crop": crop,
            }
            here = fit_image(Image.fromarray(noise), **rule)
            there = page.run(DECODE, encoded(Image.fromarray(noise)), rule)
            assert there == here.ravel().tolist(), (height, width, crop)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_files_of_every_kind_are_decoded_as_pillow_does(page, serve, rng, mode):
    page.driver.get(serve().address)
    noise = rng.integers(0, 256, (9, 14, 4)).astype("uint8")
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype("uint16") * 257)
    else:
        image = Image.fromarray(noise).convert("RGB" if mode == "P" else "RGBA")
        image = image.convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    rule = {"image_size": [9, 14], "channels": 3, "resize": "stretch"}
    rule |= {"interpolation": "bilinear", "crop": 1.0}
    sent = encoded(image, **options)
    here = fit_image(open_image(io.BytesIO(base64.b64decode(sent))), **rule)
    there = page.run(DECODE, sent, rule)
    assert there == here.ravel().tolist()


def test_files_of_other_exporters_are_fed_as_their_metadata_say(page, serve, tmp_path):
    import tensorflow as tf

    model = tmp_path / "other.tflite"
    content = described(
        converted(tf.nn.softmax), (127.5,), (127.5,), labels="names.txt"
    )
    model.write_bytes(with_file(content, "names.txt", "red\nmüsli\nblue"))
    page.open(serve(model))
    same, difference = compare(page, model, photo_files(tmp_path, 6))
    assert same == 6 and difference < 1e-4
    assert set(page.choose(next(photo_files(tmp_path, 1)))) == {"red", "müsli", "blue"}
    assert page.text("doubts") == ""


@pytest.mark.parametrize("name", ["0..255", "-1..1", "imagenet", "caffe"])
def test_bytes_of_other_exporters_are_fed_by_what_they_stand_for(
    name, page, serve, tmp_path
):
    import tensorflow as tf

    model = tmp_path / "other.tflite"
    levels = np.linspace(0, 255, 8)
    images = [PixelScale.parse(name, 3)(np.full(SHAPE, it, "float32")) for it in levels]
    content = converted(tf.nn.softmax, integers=(tf.uint8, images))
    # What its writers left of the names is used where it can be.
    model.write_bytes(with_file(content, "labels.txt", "a\r\n\r\na\n".encode("utf-16")))
    page.open(serve(model))
    same, difference = compare(page, model, photo_files(tmp_path, 6))
    assert same == 6 and difference <= 2 / 256
    names = set(page.choose(next(photo_files(tmp_path, 1))))
    assert names == {"a (0)", "class 1", "a (2)"}
    assert page.text("doubts") == ""


def test_what_a_file_leaves_open_is_said(page, serve, tmp_path):
    import tensorflow as tf

    model = tmp_path / "dark.tflite"
    images = [np.full(SHAPE, level, "float32") for level in np.linspace(0, 90, 8)]
    content = converted(tf.nn.softmax, integers=(tf.uint8, images))
    model.write_bytes(with_file(content, "labels.txt", "a\nb"))
    page.open(serve(model))
    compare(page, model, photo_files(tmp_path, 3))
    said = page.text("doubts")
    assert "names 2 classes and has 3" in said
    assert "likely of 0..255, which is taken" in said
    model.write_bytes(with_file(content, "labels.txt", "é".encode("latin-1")))
    page.open(serve(model))
    page.choose(next(photo_files(tmp_path, 1)))
    assert "labels.txt are no UTF-8" in page.text("doubts")


def test_files_of_any_size_are_refused_by_name(page, serve, tmp_path):
    import tensorflow as tf

    model = tmp_path / "any.tflite"
    model.write_bytes(converted(tf.nn.softmax, shape=(1, None, None, 3)))
    page.open(serve(DIGITS))
    page.choose(model, "model")
    assert "takes images of any size" in page.text("error")


def test_numbers_that_are_no_probabilities_are_not_shown_as_percent(
    page, serve, tmp_path
):
    import tensorflow as tf

    model = tmp_path / "scores.tflite"
    model.write_bytes(converted(tf.identity))
    page.open(serve(model))
    page.choose(next(photo_files(tmp_path, 1)))
    assert "no probabilities" in page.text("doubts")
    assert "0..255 is taken" in page.text("doubts")
    assert "%" not in page.text("results")
