"""Files of other exporters: what their metadata say is done, what they don't is asked."""

import numpy as np
import pytest
import tensorflow as tf
from foreign import KERNEL, SHAPE, converted, converted_as, described, with_file
from keras_vit_device import meaning
from keras_vit_device.pixel_scale import PixelScale
from keras_vit_device.tflite.tables import Description, read_description
from keras_vit_export import Classifier, description

# Of those that say nothing of their pixels, but where that is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*what range its pixels have")


@pytest.fixture(scope="module")
def softmax():
    return converted(tf.nn.softmax)


@pytest.fixture
def frame(rng):
    return rng.integers(0, 256, SHAPE).astype("uint8")


def answer(frame, mean, std):
    scores = ((frame - np.float32(mean)) / np.float32(std)).mean(axis=(0, 1)) @ KERNEL
    return np.asarray(tf.nn.softmax(scores))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((127.5,), (127.5,)),
        ((123.0, 116.0, 103.0), (58.0, 57.0, 57.5)),
        ((0.0,), (255.0,)),
    ],
)
def test_pixels_are_normalized_as_the_metadata_say(mean, std, softmax, frame):
    classifier = Classifier(described(softmax, mean, std))
    assert classifier.scale_source == "its NormalizationOptions"
    expected = answer(frame, mean, std)
    np.testing.assert_allclose(
        classifier.probabilities([frame])[0], expected, atol=1e-5
    )


def test_what_is_given_goes_before_the_metadata(softmax, frame):
    content = described(softmax, (0.0,), (1.0,))
    assert Classifier(content).scale.name == "0..255"
    classifier = Classifier(content, input_scale="-1..1")
    expected = answer(frame, 127.5, 127.5)
    np.testing.assert_allclose(
        classifier.probabilities([frame])[0], expected, atol=1e-5
    )


def test_a_file_that_says_nothing_has_no_known_range(softmax):
    with pytest.warns(UserWarning, match="says what range its pixels have"):
        assert Classifier(softmax).scale_source == ""


def measured(name, darkest=0.0, brightest=255.0):
    """Images, scaled, whose range a quantized file's input then has."""
    scale = PixelScale.parse(name, 3)
    levels = np.linspace(darkest, brightest, 8)
    return [scale(np.full(SHAPE, level, "float32")) for level in levels]


@pytest.mark.parametrize("kind", [tf.uint8, tf.int8])
@pytest.mark.parametrize("name", ["0..255", "0..1", "-1..1", "imagenet", "caffe"])
def test_integers_are_fed_by_what_they_stand_for(name, kind, frame):
    images = measured(name)
    float_model = converted(tf.nn.softmax)
    content = converted(tf.nn.softmax, integers=(kind, images))
    classifier = Classifier(content)
    assert (classifier.scale.name, classifier.is_guess) == (name, False)
    assert "its quantization" in classifier.scale_source
    expected = Classifier(float_model, input_scale=name).probabilities([frame])
    np.testing.assert_allclose(classifier.probabilities([frame]), expected, atol=0.03)
    other = "imagenet" if name == "0..1" else "0..1"
    with pytest.raises(ValueError, match=f"pixels as {name}, by its quantization"):
        Classifier(content, input_scale=other)


def test_integers_of_no_common_range_are_a_guess_that_is_said(frame):
    content = converted(tf.nn.softmax, integers=(tf.uint8, measured("0..255", 0, 90)))
    with pytest.warns(UserWarning, match=r"likely of 0\.\.255, which is taken"):
        classifier = Classifier(content)
    assert classifier.is_guess
    dark = frame // 3
    expected = Classifier(converted(tf.nn.softmax)).probabilities([dark])
    np.testing.assert_allclose(classifier.probabilities([dark]), expected, atol=0.03)
    assert not Classifier(content, input_scale="0..255").is_guess
    with pytest.raises(ValueError, match="are no pixels in that range"):
        Classifier(content, input_scale="-1..1")


def test_bytes_with_mediapipes_metadata_are_fed_as_mediapipe_feeds_them(frame):
    integers = (tf.uint8, measured("-1..1"))
    content = described(converted(tf.nn.softmax, integers=integers), (127.5,), (127.5,))
    in_bytes = Classifier(content)
    assert in_bytes.scale_source == "its metadata and its type, uint8"
    plain = Classifier(converted(tf.nn.softmax, tf.uint8))
    assert plain.scale_source == "its type, uint8"
    with pytest.raises(ValueError, match="by its type, uint8"):
        Classifier(plain.content, input_scale="0..1")


def test_what_takes_any_size_or_channels_first_is_refused_by_name():
    for shape in ((1, None, None, 3), (1, 4, None, 3)):
        with pytest.raises(ValueError, match="takes images of any size"):
            Classifier(converted(tf.nn.softmax, shape=shape))
    first = lambda image: tf.nn.softmax(tf.reduce_mean(image, axis=(2, 3)))
    with pytest.raises(ValueError, match=r"takes its channels first, \(3, 8, 12\)"):
        Classifier(converted_as(first, (1, 3, 8, 12)))


def test_class_names_are_read_from_the_file_that_the_metadata_name(softmax):
    content = with_file(
        described(softmax, labels="names.txt"), "names.txt", "\ufeffa\r\nb \r\nc"
    )
    assert Classifier(content).class_names == ("a", "b", "c")
    assert not Classifier(described(softmax, labels="names.txt")).named


@pytest.mark.parametrize(
    ("content", "names", "words"),
    [
        ("a\na\na (0)", ("a (0) (0)", "a (1)", "a (0)"), None),
        ("a\n\nc\n\n", ("a", "class 1", "c"), None),
        ("a\u2028b\nc\rd\n", ("a\\u2028b", "c", "d"), None),
        ("é\nb\nc".encode("utf-16"), ("é", "b", "c"), None),
        ("é\nb\nc".encode("latin-1"), None, "names.txt are no UTF-8 and are not used"),
        ("a\nb", None, "names 2 classes and has 3: its names aren't used"),
    ],
)
def test_names_that_others_wrote_are_used_or_it_is_said(content, names, words, softmax):
    file = with_file(described(softmax, labels="names.txt"), "names.txt", content)
    classifier = Classifier(file, input_scale="0..255")
    assert classifier.class_names == (names or ("class 0", "class 1", "class 2"))
    assert [words in line for line in classifier.remarks] == ([True] if words else [])
    given = Classifier(file, input_scale="0..255", class_names=("x", "x", "y"))
    assert given.class_names == ("x (0)", "x (1)", "y") and given.remarks == ()


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (tf.identity, "unknown meaning"),
        (tf.nn.sigmoid, "do not exclude"),
        (lambda x: tf.nn.l2_normalize(x, axis=1), "an embedding"),
        (lambda x: 100 * tf.nn.softmax(x / 50), "percent: rows sum to 100"),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused(last, words, frame):
    content = converted(last)
    classifier = Classifier(content)  # what it is can be looked at
    with pytest.raises(ValueError, match=words):
        classifier(frame)
    scores = Classifier(content).output([frame])
    said = Classifier(content, logits=True).probabilities([frame])
    np.testing.assert_allclose(said, tf.nn.softmax(scores), atol=1e-6)


def test_what_is_said_of_a_file_must_fit_it(softmax, frame):
    with pytest.raises(ValueError, match="probabilities already"):
        Classifier(softmax, logits=True)(frame)
    with pytest.raises(ValueError, match="must name 3 classes. Received: 2"):
        Classifier(softmax, class_names=("a", "b"))


def test_scores_that_are_to_be_calibrated_are_no_answer(softmax, frame):
    classifier = Classifier(described(softmax, calibrated=True))
    with pytest.raises(ValueError, match="want a score calibration"):
        classifier(frame)


def test_probabilities_of_bytes_need_not_sum_to_one_exactly():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(1000, 0.02), 5)
    rounded = np.rint(rows * 256).clip(0, 255) / 256
    assert abs(rounded.sum(axis=1) - 1).max() > 0.01
    assert meaning.of_rows(rounded, 1 / 256).kind == meaning.PROBABILITIES
    assert meaning.of_rows(rounded).kind != meaning.PROBABILITIES


def test_our_own_description_is_read(softmax):
    assert read_description(description.describe(softmax)) == Description(
        mean=(0.0,), std=(1.0,), labels="labels.txt"
    )
    assert read_description(softmax) == Description()


def test_damaged_metadata_are_one_clear_line(softmax):
    content = described(softmax, (127.5,), (127.5,))
    at = content.index(description.IDENTIFIER)
    damaged = content[: at - 4] + b"\xff" * 8 + content[at + 4 :]
    with pytest.raises(ValueError, match="metadata are damaged"):
        Classifier(damaged)
    for mean, std in (((1.0, 2.0), (1.0,)), ((0.0,), (0.0,))):
        with pytest.raises(ValueError, match="NormalizationOptions are"):
            Classifier(described(softmax, mean, std))


def test_random_bytes_end_in_a_value_error_or_nothing(softmax):
    rng = np.random.default_rng(0)
    content = bytearray(described(softmax, (127.5,), (127.5,), labels="names.txt"))
    for _ in range(400):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(0, 256)
        try:
            read_description(bytes(broken))
        except ValueError as error:
            assert "metadata are damaged" in str(error)
