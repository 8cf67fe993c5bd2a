"""What a file carries to prove itself, and what can't pass."""

import json

import numpy as np
import pytest
from foreign import with_contract
from keras_vit_device.self_test import (
    KEY,
    MOST_PROBABLE,
    Pattern,
    SelfTest,
    UselessError,
    find_self_test,
    make_self_test,
)
from keras_vit_device.tflite import metadata
from keras_vit_export import Classifier
from keras_vit_export.exporter import Exporter, export
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from keras_vit import build_vit

PATTERN = Pattern(seed=1, cell=2, low=20, span=200)


def stored(probabilities, tolerance=0.1, classes=None):
    probabilities = np.array(probabilities)
    classes = np.arange(len(probabilities)) if classes is None else np.array(classes)
    return SelfTest(PATTERN, classes, probabilities, tolerance, "its")


def made(answer, exact=None, short=None):
    """A self-test of an answer that nothing rounds, unless another is given."""
    seen = []

    def once(image):
        seen.append(answer(image))
        return seen[-1]

    same = lambda image: seen[-1]
    shape = (8, 8, 3)
    return make_self_test(once, exact or same, short or same, shape, 0.1, "its")


@pytest.fixture(scope="module")
def content():
    import keras

    from keras_vit import ViTConfig

    keras.utils.set_random_seed(0)
    fields = {"width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 12, "num_classes": 3}
    model = build_vit(ViTConfig(image_size=(8, 12), patch_size=4, **fields))
    head = model.get_layer("head").logits
    head.kernel.assign(np.random.default_rng(0).normal(size=head.kernel.shape))
    return export(model, "float32")[0]


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 8, 1)])
def test_a_pattern_is_its_formula(shape):
    drawn = PATTERN.draw(shape)
    for y, x, c in np.ndindex(shape):
        h = (7919 * (y // 2) + 10007 * (x // 2) + 12553 * c + 15401) % 46337
        v = (h * h % 46337 + 12345) % 46337
        assert h * h < 2**31 and v * h < 2**31  # Kotlin's Int
        assert drawn[y, x, c] == 20 + (v * h % 46337) % 256 * 200 // 255


def test_patterns_are_as_random_as_they_look():
    drawn = Pattern(0, 1, 0, 255).draw((64, 64, 3)).astype(float)
    assert abs(drawn.mean() - 127.5) < 3 and abs(drawn.std() - 74) < 3
    for axis in range(3):  # neighbours know nothing of each other
        pairs = (np.delete(drawn, side, axis).ravel() for side in (0, -1))
        assert abs(np.corrcoef(*pairs)[0, 1]) < 0.05


def test_the_distance_is_the_total_variation():
    test = stored([0.5, 0.3, 0.2])
    assert test.judge([0.5, 0.3, 0.2]).distance == pytest.approx(0)
    verdict = test.judge([0.3, 0.45, 0.25])
    assert verdict.distance == pytest.approx(0.2)
    assert not verdict.passed
    assert verdict.expected == (0, 0.5) and verdict.given == (1, 0.45)
    told = verdict.explain(("cat", "dog", "cow"))
    assert (
        told == "expected cat 50.0%, got dog 45.0%, distance 0.2 where 0.1 is allowed"
    )
    assert test.judge([0.45, 0.35, 0.2]).passed


def test_an_answer_of_no_numbers_fails():
    for row in ([np.nan] * 3, [np.inf, 0.3, 0.2]):
        assert not stored([0.5, 0.3, 0.2]).judge(row).passed


def test_of_many_classes_the_most_probable_are_stored(rng):
    row = rng.dirichlet(np.full(21843, 0.01))
    test = made(lambda image: row)
    assert len(test.classes) == MOST_PROBABLE
    assert set(test.classes) == set(np.argsort(-row)[:MOST_PROBABLE])
    assert len(json.dumps(test.as_dict(), indent=1)) < 20_000
    again = SelfTest.from_dict(json.loads(json.dumps(test.as_dict())))
    assert again.judge(row).distance < 0.01
    assert not again.judge(np.roll(row, 1)).passed  # what was stored, and the rest
    rest = np.delete(np.arange(len(row)), test.classes)
    moved = row.copy()
    moved[rest] += 0.5 / len(rest)
    assert again.judge(moved).distance == pytest.approx(0.25, abs=0.01)


def test_a_thousand_classes_fit_too(rng):
    row = rng.dirichlet(np.full(1000, 0.1))
    test = made(lambda image: row)
    assert len(test.classes) == 1000
    assert len(json.dumps(test.as_dict(), indent=1)) < 20_000
    assert test.judge(row).distance < 0.005


def test_the_pattern_sets_classes_apart():
    seen = []

    def answer(image):
        seen.append(image)
        sure = {4: 0.6, 5: 0.999}.get(len(seen), 0.35)
        return np.array([sure, (1 - sure) / 2, (1 - sure) / 2])

    test = made(answer)
    assert test.probabilities.max() == 0.6
    np.testing.assert_array_equal(test.pattern.draw((8, 8, 3)), seen[3])
    assert len(seen) == 4  # that was enough


def test_the_tolerance_follows_what_rounding_does():
    right = np.array([0.6, 0.3, 0.1])

    def moved(by):
        return lambda image: right + by * np.array([-1, 1, 0])

    assert made(lambda image: right, moved(0.01), moved(0.01)).tolerance == 0.1
    test = made(lambda image: right, moved(0.08), moved(0.08))
    assert test.tolerance == pytest.approx(0.16)
    test = made(lambda image: right, None, moved(0.15))
    assert test.tolerance == pytest.approx(0.3)
    assert made(lambda image: right, None, moved(9.0)).tolerance == 0.5
    nothing = lambda image: np.full(3, np.nan)
    assert made(lambda image: right, None, nothing).tolerance == 0.1


def test_a_pattern_that_rounding_moves_less_is_preferred():
    answers = [0.6, 0.7] + [0.99] * 100
    seen = []

    def answer(image):
        seen.append(image)
        sure = answers[len(seen) - 1]
        return np.array([sure, 1 - sure])

    def exact(image):
        row = np.array([0.9, 0.1])
        return row if len(seen) == 2 else np.array([0.6, 0.4])

    test = made(answer, exact)
    np.testing.assert_array_equal(test.pattern.draw((8, 8, 3)), seen[0])


def test_a_test_that_tells_little_says_so():
    assert stored([0.999, 0.001, 0.0]).weak
    assert stored([1 / 3] * 3).weak
    assert not stored([0.6, 0.3, 0.1]).weak


@pytest.mark.parametrize("recipe", ["dynamic_int8", "full_int8"])
def test_a_file_carries_a_test_that_it_passes(recipe, model, pixels):
    exporter = Exporter(model, pixels)
    files, reports = exporter.check({recipe: exporter.convert(recipe)}, ["cpu"])
    classifier = Classifier(files[recipe])
    assert classifier.verdict.passed
    assert (
        QUANTIZATION_RECIPES[recipe].tolerance <= classifier.self_test.tolerance < 0.3
    )
    assert reports[recipe].accelerators["cpu"].self_test == "passed"
    wrong = np.roll(classifier.self_test.probabilities, 1)
    assert not classifier.judge(wrong).passed


def test_a_file_that_answers_otherwise_is_refused_with_both_answers(content):
    before = metadata.read(content).contract[KEY]
    test = before | {"probabilities": before["probabilities"][::-1]}
    wrong = with_contract(content, **{KEY: test})
    with pytest.raises(
        ValueError, match=r"fails its self-test on the CPU: expected .*%, got .*%, dist"
    ):
        Classifier(wrong)
    assert Classifier(wrong, self_test=False).verdict is None


def test_a_file_without_a_test_runs_and_none_is_claimed(content):
    classifier = Classifier(with_contract(content, **{KEY: None}))
    assert classifier.self_test is None and classifier.verdict is None
    assert find_self_test({}, 3) is None


WHOLE = {
    "pattern": {"seed": 0, "cell": 1, "low": 0, "span": 9},
    "probabilities": [0.5, 0.3, 0.2],
    "tolerance": 0.1,
    "sha256": "its",
}


@pytest.mark.parametrize(
    "test",
    [
        "yes",
        {},
        None,
        [1, 2],
        WHOLE | {"pattern": {"seed": 0, "cell": 0, "low": 0, "span": 9}},
        WHOLE | {"pattern": {"seed": 0, "cell": 0.5, "low": 0, "span": 9}},
        WHOLE | {"pattern": {"seed": 10**30, "cell": 1, "low": 0, "span": 9}},
        WHOLE | {"pattern": {"seed": 0, "cell": 1, "low": 200, "span": 99}},
        WHOLE | {"pattern": {"seed": 0, "cell": True, "low": 0, "span": 9}},
        WHOLE | {"pattern": {"seed": 0}},
        WHOLE | {"tolerance": 1.5},
        WHOLE | {"tolerance": "0.1%"},
        WHOLE | {"tolerance": float("nan")},
        WHOLE | {"classes": [0, 1]},
        WHOLE | {"classes": [0, 1, 3]},
        WHOLE | {"classes": [0, -1, 2]},
        WHOLE | {"classes": [0.0, 0.5, 2]},
        WHOLE | {"classes": [[0, 1, 2]]},
        WHOLE | {"probabilities": ["a"] * 3},
        WHOLE | {"probabilities": [0.5, None, 0.2]},
        WHOLE | {"probabilities": 3},
        WHOLE | {"probabilities": []},
        WHOLE | {"probabilities": [0.1] * 4},
    ],
)
def test_a_damaged_test_is_said(test):
    with pytest.raises(UselessError, match="its self-test is damaged") as error:
        find_self_test({"sha256": "its", KEY: test}, 3)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
    assert find_self_test({"sha256": "its", KEY: WHOLE}, 3).judge([0.5, 0.3, 0.2])


def test_a_test_of_another_model_is_said(content):
    foreign = metadata.read(content).contract[KEY] | {"sha256": "0" * 64}
    with pytest.raises(ValueError, match="self-test is that of another model"):
        Classifier(with_contract(content, **{KEY: foreign}))
    with pytest.raises(ValueError, match="model' is damaged|is damaged: its self-test"):
        Classifier(with_contract(content, **{KEY: {}}))
