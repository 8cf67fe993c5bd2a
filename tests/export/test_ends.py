"""What a Keras model of another make takes and gives is read, checked or asked for."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_vit_device.pixel_scale import PixelScale, common
from keras_vit_export import Classifier, export
from keras_vit_export.exporter import Exporter
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.keras_ends import read_ends
from shades import SHAPE, behind, by_brightness

from keras_vit import build_vit
from keras_vit.data import from_arrays


def adapted(mean, variance):
    norm = layers.BatchNormalization()
    norm.build((None, *SHAPE))
    norm.set_weights([np.ones(3), np.zeros(3), np.full(3, mean), np.full(3, variance)])
    return norm


def nested(x):
    image = keras.Input(SHAPE)
    return keras.Model(image, layers.Rescaling(1 / 127.5, -1)(image))(x)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (layers.Rescaling(1 / 255), "0..255"),
        (lambda x: x / 127.5 - 1.0, "0..255"),
        (lambda x: x - np.float32([103.9, 116.8, 123.7]), "0..255"),
        (nested, "0..255"),
        (lambda x: layers.Rescaling(1 / 255)(layers.RandomFlip()(x)), "0..255"),
        (layers.Normalization(mean=[120.0] * 3, variance=[4000.0] * 3), "0..255"),
        (layers.Normalization(mean=[0.48] * 3, variance=[0.05] * 3), "0..1"),
        (layers.Rescaling(2.0, -1.0), "0..1"),
        (adapted(118.0, 4000.0), "0..255"),
        (adapted(0.46, 0.07), "0..1"),
        (layers.BatchNormalization(), None),
        (layers.ZeroPadding2D(), None),
        (layers.RandomFlip(), None),
        (layers.Identity(), None),
    ],
)
def test_what_stands_before_the_first_kernel_tells_the_range_of_pixels(first, expected):
    ends = read_ends(behind(first))
    assert (ends.scale and ends.scale.name) == expected
    assert bool(ends.scale_source) == (expected is not None)


@pytest.mark.parametrize("given", ["-1..1", "imagenet"])
def test_a_guess_that_labelled_images_contradict_is_refused(given, shades):
    mean, std = {"-1..1": (0.0, 0.577), "imagenet": (0.14, 1.4)}[given]
    scale = PixelScale.parse(given, 3)
    low, high = (scale(np.full((1, 3), 255 * c)).mean() for c in (0.0, 1.0))
    image = keras.Input(SHAPE)
    norm = layers.Normalization(mean=[mean] * 3, variance=[std**2] * 3)
    # Undoes both: what comes after is right for that range alone.
    undo = layers.Conv2D(3, 1)
    undo.build((None, *SHAPE))
    kernel = np.eye(3)[None, None] * std / (high - low)
    undo.set_weights([kernel, np.full(3, (mean - low) / (high - low))])
    model = keras.Model(image, by_brightness()(undo(norm(image))))
    for again in (given, ""):
        classifier = KerasClassifier(model, again)
        right = classifier.scale.name == given
        assert classifier.is_guess == (not again)
        if right:
            assert Exporter(classifier, shades).taken_for_granted == ()
        else:
            with pytest.raises(ValueError, match=f"--input-scale {given} "):
                Exporter(classifier, shades)


def test_scaling_inside_a_sequential_and_inside_models_in_it_is_found():
    inner = behind(layers.Rescaling(1 / 255))
    outer = keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(), inner])
    assert read_ends(outer).scale.name == "0..255"
    # Scaled twice, it is fit for no range that is common.
    image = keras.Input(SHAPE)
    twice = keras.Model(image, inner(layers.Rescaling(1 / 255)(image)))
    assert read_ends(twice).scale is None


def test_reading_leaves_the_model_as_it_is():
    model = behind(layers.Rescaling(1 / 255))
    before = model.layers[2].output
    KerasClassifier(model)
    assert model.layers[2].output is before


def test_a_range_that_labelled_images_contradict_is_refused(shades):
    with pytest.raises(ValueError, match=r"33.3% as 0..255, 100.0% as 0..1") as refused:
        export(by_brightness(), "float32", shades)
    assert "--input-scale 0..1 " in str(refused.value)


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [("0..1", 0.0, 1.0), ("-1..1", 0.5, 0.5), ("51,102", 0.2, 0.4)],
)
def test_a_range_that_is_given_goes_into_the_file(given, mean, std, shades):
    model = by_brightness(mean, std)
    content, report = export(model, "float32", shades, input_scale=given)
    assert report.top1 == 1.0 and report.taken_for_granted == ()
    (images, _), *_ = shades
    expected = model((images.numpy() / 255 - mean) / std)
    got = Classifier(content).probabilities(images.numpy())
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_model_of_0_to_1_that_says_so_is_fed_with_it(shades):
    model = by_brightness(0.5, 0.2)
    image = keras.Input(SHAPE)
    norm = layers.Normalization(mean=[0.5] * 3, variance=[0.04] * 3)
    model = keras.Model(image, model(norm(image)))
    _, report = export(model, "float32", shades)
    assert report.top1 == 1.0 and "normalization" in report.pixels


def test_a_range_that_was_not_checked_is_said(shades, pixels):
    for images in (None, pixels):
        _, report = export(by_brightness(), "float32", images)
        assert "nothing was checked" in report.taken_for_granted[0]
    same = by_brightness(0.0, 1 / 255)
    _, report = export(same, "float32", shades)
    assert "100.0% as 0..255, 33.3% as 0..1" in report.taken_for_granted[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0..2", "must be 0..255, 0..1"),
        ("0.485,0.229", "in pixels of 0..255"),
        ("127.5", "positive STD"),
        ("127.5,0", "positive STD"),
        ("1,2,3,4", "3 channels"),
        ("nan,1", "positive STD"),
    ],
)
def test_a_range_that_is_none_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        KerasClassifier(by_brightness(), text)


def test_a_range_beside_the_models_own_is_refused(tiny):
    with pytest.raises(ValueError, match="scales them itself, by its layer scaling"):
        KerasClassifier(build_vit(tiny()), "0..1")
    KerasClassifier(build_vit(tiny()), "0..255")


@pytest.mark.parametrize(("name", "mode"), [("caffe", "caffe"), ("imagenet", "torch")])
def test_named_ranges_are_those_of_keras(name, mode, pixels):
    expected = keras.applications.imagenet_utils.preprocess_input(
        pixels.astype("float32"), mode=mode
    )
    scale = PixelScale.parse(name, 3)
    np.testing.assert_allclose(scale(pixels), expected, atol=1e-4)
    model = behind(layers.Identity())
    given = KerasClassifier(model, name).output(pixels)
    np.testing.assert_allclose(given, model(expected), atol=1e-5)


def test_grey_models_are_offered_grey_ranges():
    assert [it.name for it in common(1)] == ["0..255", "0..1", "-1..1"]
    with pytest.raises(ValueError, match="1 channels"):
        PixelScale.parse("imagenet", 1)


def test_a_model_near_chance_is_called_so(shades):
    _, report = export(by_brightness(), "float32", shades, input_scale="0..255")
    chance, one = report.remarks
    assert (
        chance.startswith("Top-1, 20 of 60") and "largest class alone is 33%" in chance
    )
    assert one == "100% of the images are answered with 'class 2'."
    _, report = export(by_brightness(), "float32", shades, input_scale="0..1")
    assert report.remarks == ()


def test_what_a_model_of_ours_holds_is_found_inside_another(tiny):
    names = ("a", "b", "c")
    fields = {"resize": "crop", "interpolation": "bicubic", "crop": 0.9}
    inner = build_vit(tiny(class_names=names, **fields))
    image = keras.Input(inner.input_shape[1:])
    outer = KerasClassifier(keras.Model(image, layers.Softmax()(inner(image))))
    assert fields.items() <= outer.preprocessing.items()
    assert outer.class_names == names and outer.named
    assert outer.scale_source == "its scaling"
    # Other classes behind them are not these.
    more = layers.Dense(3, activation="softmax")(inner(image))
    assert not KerasClassifier(keras.Model(image, more)).named


def test_class_names_of_the_data_go_into_the_file(tiny, pixels):
    labels, rows = np.arange(16) % 3, np.split(np.arange(16), [4, 8])
    rows = dict(zip(("test", "validation", "train"), rows, strict=True))
    data = from_arrays("noise", ["x", "y", "z"], pixels, labels, rows).load()
    exporter = Exporter(build_vit(tiny()), data)
    files, _ = exporter.check({"float32": exporter.convert("float32")})
    assert Classifier(files["float32"]).class_names == ("x", "y", "z")


def test_data_of_the_classes_in_another_order_are_refused(tiny, pixels):
    labels, rows = np.arange(16) % 3, np.split(np.arange(16), [4, 8])
    rows = dict(zip(("test", "validation", "train"), rows, strict=True))
    source = from_arrays("noise", ["x", "y", "z"], pixels, labels, rows)
    model = build_vit(tiny(class_names=("z", "x", "y")))
    with pytest.raises(ValueError, match="classes in another order"):
        Exporter(model, source.load())
    ordered = source.with_classes_in([2, 0, 1])
    assert ordered.class_names == ("z", "x", "y")
    for name in ("train", "validation", "test"):
        _, before = source.splits[name].arrays
        _, after = ordered.splits[name].arrays
        names = [ordered.class_names[label] for label in after]
        assert names == [source.class_names[label] for label in before]
    Exporter(model, ordered.load())


def test_images_that_no_file_can_be_are_said_and_channels_first_refused(rng):
    def small(shape):
        image = keras.Input(shape)
        x = layers.Flatten()(image)
        return keras.Model(image, layers.Dense(3, activation="softmax")(x))

    remarks = KerasClassifier(small((8, 8, 4)), "0..255").remarks
    assert remarks == ("It takes 4 channels: arrays, no image files.",)
    with pytest.raises(ValueError, match=r"channels first, \(3, 8, 8\)"):
        KerasClassifier(small((3, 8, 8)))


@pytest.mark.parametrize("given", ["0..1", ""])
def test_a_grey_model_of_any_make_is_let_take_colours(given, rng):
    image = keras.Input((8, 12, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    grey = KerasClassifier(keras.Model(image, layers.Dense(3)(x)), given, logits=True)
    colour = grey.with_rgb_input()
    assert colour.preprocessing["channels"] == 3 and colour.scale == grey.scale
    frames = rng.uniform(0, 255, (2, 8, 12, 3)).astype("float32")
    luma = frames @ np.float32([[0.299], [0.587], [0.114]])
    expected = grey.probabilities(luma)
    np.testing.assert_allclose(colour.probabilities(frames), expected, atol=1e-5)
    content, _ = Exporter(colour).check({"it": Exporter(colour).convert("float32")})
    answer = Classifier(content["it"]).probabilities(frames)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    with pytest.raises(ValueError, match="Received: 3 channels"):
        colour.with_rgb_input()


def test_arrays_that_are_scaled_already_are_refused(tiny, pixels):
    model = build_vit(tiny(head_output="softmax"))
    content, _ = export(model, "float32", pixels)
    for classifier in (Classifier(content), KerasClassifier(model)):
        for wrong in (pixels / 255, pixels.astype("float32") - 1, pixels * np.nan):
            with pytest.raises(ValueError, match="pixels in 0..255"):
                classifier.probabilities(wrong)
        black = classifier.probabilities(np.zeros_like(pixels, "float32"))
        assert black.shape == (len(pixels), 3)


@pytest.mark.parametrize("recipe", ["full_int8", "int16x8"])
@pytest.mark.parametrize(
    "first", [layers.Rescaling(1 / 127.5, -1), lambda x: x / 255 * 2 - 1]
)
def test_integers_bear_scaling_before_a_padded_convolution(recipe, first, pixels):
    _, report = export(behind(first), recipe, pixels)
    assert report.snr_db > 30


def test_mixed_precision_with_an_adapted_normalization_is_exported(pixels):
    keras.config.set_dtype_policy("mixed_bfloat16")
    norm = layers.Normalization()
    norm.adapt(pixels.astype("float32"))
    model = behind(norm)
    _, report = export(model, "float32", pixels)
    assert report.max_difference < 1e-3


@pytest.mark.parametrize("crops", [False, True])
def test_the_preprocessor_of_a_kerashub_classifier_is_read(crops, pixels):
    hub = pytest.importorskip("keras_hub", reason="pip install keras-hub")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=SHAPE,
    )
    converter = hub.layers.ResNetImageConverter(
        image_size=SHAPE[:2],
        scale=[1 / 58.4, 1 / 57.1, 1 / 57.4],
        offset=[-2.12, -2.04, -1.8],
        crop_to_aspect_ratio=crops,
        interpolation="bicubic",
    )
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    model = hub.models.ResNetImageClassifier(backbone, 3, preprocessor)
    expected = keras.ops.softmax(model.predict(pixels.astype("float32"), verbose=0))
    classifier = KerasClassifier(model)
    np.testing.assert_allclose(classifier.probabilities(pixels), expected, atol=1e-5)
    resize = "crop" if crops else "stretch"
    fitted = {"resize": resize, "interpolation": "bicubic"}
    assert fitted.items() <= classifier.preprocessing.items()
