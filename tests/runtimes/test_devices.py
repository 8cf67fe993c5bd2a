"""Every runtime that is here gives Keras' answers, or says that it can't."""

import pytest

from .material import FILES, recipe_of
from .runtimes import GIVEN

pytestmark = pytest.mark.devices

# MediaPipe has a rule of its own, which shrinks without averaging. Measured were 97.0 %
# and 84.0 % at least.
OWN_RESIZING = {"smaller": 0.95, "larger": 0.8}


def least_agreement(name):
    """What is promised; of 4-bit weights nothing is, so that is what was measured."""
    return {"float32": 0.99, "float16": 0.99, "int4": 0.97}.get(name, 0.98)


def test_it_runs_what_the_readme_says_and_nothing_else(answered):
    runtime, results = answered[0], answered[1].results
    reasons = {name: it.reason for name, it in results.items() if it.reason}
    assert set(reasons) == runtime.refuses, reasons
    assert results.keys() == set(FILES)
    left = {name: it.left for name, it in results.items() if it.left}
    assert set(left) == runtime.partly, left


def test_arrays_get_the_answers_of_keras(answered):
    runtime, results = answered[0], answered[1].results
    for name in FILES:
        if name not in runtime.refuses | runtime.wrong:
            assert results[name].agreement["arrays"] >= least_agreement(name), name
    assert results["float32"].difference["arrays"] < 1e-5


def test_image_files_get_the_answers_of_keras(answered):
    runtime, results = answered[0], answered[1].results
    for name in set(FILES) - runtime.refuses - runtime.wrong:
        for kind in GIVEN[1:]:
            least = OWN_RESIZING[kind] if runtime.resizes else least_agreement(name)
            assert results[name].agreement[kind] >= least, (name, kind)
    if not runtime.resizes:
        assert results["float32"].difference["larger"] < 1e-5


def test_the_self_test_tells_right_from_wrong(answered):
    runtime, results = answered[0], answered[1].results
    for name in set(FILES) - runtime.refuses:
        passed = results[name].distance <= recipe_of(name).tolerance
        assert passed == (name not in runtime.wrong), (name, results[name].distance)


def test_what_is_marked_as_wrong_is_wrong(answered):
    runtime, results = answered[0], answered[1].results
    # Else `Classifier` would refuse it for nothing.
    for name in runtime.wrong:
        assert results[name].agreement["arrays"] < 0.5, name


def test_fewer_tokens_get_the_answers_of_keras(answered):
    """Wherever the recipe itself runs, and rightly."""
    runtime, found = answered
    for name, result in found.reduced.items():
        recipe = recipe_of(name).name
        assert bool(result.reason) == (recipe in runtime.refuses), (name, result.reason)
        if recipe not in runtime.refuses | runtime.wrong:
            assert result.agreement["arrays"] >= least_agreement(recipe) - 0.01, name
            assert result.distance <= recipe_of(name).tolerance, name
