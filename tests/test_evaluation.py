import numpy as np
import pytest

from keras_vit import Evaluation
from keras_vit.evaluation import are_probabilities


@pytest.fixture
def evaluation():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
    return Evaluation(np.array([0, 2, 1]), probabilities, ("a", "b", "c"))


def test_figures_are_those_counted_by_hand(evaluation):
    assert evaluation.top1 == pytest.approx(2 / 3)
    assert evaluation.top5 is None
    assert evaluation.by_class == {"a": 1.0, "b": 0.0, "c": 1.0}
    assert evaluation.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_a_class_without_images_has_no_accuracy():
    evaluation = Evaluation(np.array([0]), np.array([[0.9, 0.1]]), ("a", "b"))
    assert evaluation.by_class == {"a": 1.0, "b": None}


def test_top_five_counts_the_five_most_probable():
    probabilities = np.tile(np.linspace(1, 0, 12), (2, 1))
    evaluation = Evaluation(np.array([4, 5]), probabilities, tuple("abcdefghijkl"))
    assert (evaluation.top1, evaluation.top5) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0.2, 0.8]], True),
        ([[0.0, 0.0]], False),
        ([[-0.5, 1.5]], False),
        ([[0.5, 0.9]], False),
    ],
)
def test_probabilities_are_told_from_logits(rows, expected):
    assert bool(are_probabilities(np.array(rows))) is expected
