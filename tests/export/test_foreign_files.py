"""Files of other exporters: what their metadata say is done, what they don't is asked."""

import numpy as np
import pytest
import tensorflow as tf
from foreign import KERNEL, SHAPE, converted, described, with_file
from keras_vit_export import Classifier, description, meaning
from keras_vit_export.tables import Description, read_description

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
    with pytest.warns(UserWarning, match="does not say what range its pixels have"):
        assert Classifier(softmax).scale_source == ""
    in_bytes = Classifier(converted(tf.nn.softmax, tf.uint8))
    assert in_bytes.scale_source == "its type, uint8"
    with pytest.raises(ValueError, match="by its type, uint8"):
        Classifier(in_bytes.content, input_scale="0..1")


def test_class_names_are_read_from_the_file_that_the_metadata_name(softmax):
    content = with_file(
        described(softmax, labels="names.txt"), "names.txt", "\ufeffa\r\nb \r\nc"
    )
    assert Classifier(content).class_names == ("a", "b", "c")
    assert not Classifier(described(softmax, labels="names.txt")).named


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (tf.identity, "unknown meaning"),
        (tf.nn.sigmoid, "do not exclude"),
        (lambda x: tf.nn.l2_normalize(x, axis=1), "an embedding"),
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
