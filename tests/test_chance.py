"""A model that is no better than its largest class is told from one that is."""

import numpy as np
import pytest

from keras_vit.chance import (
    against_chance,
    remarks,
    warnings_of,
    wilson_interval,
)
from keras_vit.evaluation import Evaluation


def test_the_interval_is_wilsons():
    # Newcombe 1998, table I, https://doi.org/10.1002/sim.4780170612: method 3.
    for (hits, count), bounds in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson_interval(hits, count) == pytest.approx(bounds, abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "hits", "beats"),
    [
        ((5, 4, 4), 13, True),
        ((5, 4, 4), 6, False),
        ((2, 2, 1), 4, False),  # four of five tell nothing
        ((95, 5), 95, False),  # as one that always answers the first
        ((95, 5), 100, True),
        ((100, 100, 100), 100, False),
        ((100, 100, 100), 121, True),
    ],
)
def test_chance_is_the_largest_class_and_few_images_tell_little(counts, hits, beats):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert (against_chance("Test", hits, labels) is None) == beats


def answered(labels, answers, accuracies):
    probabilities = np.eye(3)[answers]
    evaluation = Evaluation(np.array(labels), probabilities, ("a", "b", "c"))
    return warnings_of(accuracies, len(accuracies), np.array(labels), evaluation)


def test_a_good_run_has_nothing_to_say():
    labels = list(range(3)) * 10
    assert answered(labels, labels, [0.3, 0.9, 1.0]) == ()
    assert answered(labels, labels, [1.0, 1.0, 1.0]) == ()


def test_a_run_at_chance_says_so_and_what_to_try():
    labels = list(range(3)) * 10
    said = answered(labels, [0] * 30, [1 / 3] * 4)
    assert [sentence.split()[0] for sentence in said] == [
        "Validation",
        "Test",
        "100%",
        "Validation",
        "More",
    ]
    assert "10 of 30" in said[1] and "'a'" in said[2] and "it never moved" in said[3]
    assert "--from a pretrained model" in said[-1]


def told(labels, answers):
    names = ("a", "b", "c", "d")
    return remarks(Evaluation(labels, np.eye(4)[np.asarray(answers) % 4], names))


def test_nearly_one_answer_for_all_is_noticed():
    labels = np.repeat([0, 1, 2, 3], [70, 10, 10, 10])
    chance, one = told(labels, np.zeros(100, int))
    assert (
        chance.startswith("Top-1, 70 of 100") and "largest class alone is 70%" in chance
    )
    assert one == "100% of the images are answered with 'a'."
    assert told(labels, labels) == ()


def test_classes_in_another_order_are_noticed():
    labels = np.arange(80) % 4
    chance, order = told(labels, labels + 1)
    assert chance.startswith("Top-1, 0 of 80")
    assert "another order: named d, a, b, c, top-1 would be 100.0%" in order
    assert told(labels, np.where(labels < 1, 1, labels)) == ()
