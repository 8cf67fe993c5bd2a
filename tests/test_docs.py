"""The site's pages: every public name and flag, the pattern of the guides for phones."""

import importlib
import inspect
import pathlib
import re
import runpy

import numpy as np
import pytest
from keras_vit_device.self_test import Pattern

import keras_vit.explain
import keras_vit.pictures

DOCS = pathlib.Path(__file__).parents[1] / "docs"
REFERENCE = "\n".join(it.read_text() for it in (DOCS / "reference").glob("*.md"))
LISTED = re.findall(r"^::: ([\w.]+)$", REFERENCE, re.MULTILINE)


def public():
    """Every public object, by the name that a user imports it by."""
    for name in (
        "keras_vit",
        "keras_vit.layers",
        "keras_vit.data",
        "keras_vit.weights",
        "keras_vit_export",
    ):
        module = importlib.import_module(name)
        for it in module.__all__:
            if not inspect.ismodule(getattr(module, it)):
                yield f"{name}.{it}", getattr(module, it)
    for module in (keras_vit.explain, keras_vit.pictures):
        for name, it in inspect.getmembers(module, inspect.isfunction):
            if it.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}", it


def named(path):
    """The object of a dotted name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_public_name_has_a_docstring_and_one_place_in_the_reference():
    listed = [named(it) for it in LISTED]
    assert len(set(LISTED)) == len(LISTED)
    for name, it in public():
        assert sum(it is other for other in listed) == 1, name
        assert isinstance(it, dict) or inspect.getdoc(it), name


def test_the_page_of_commands_is_the_parsers():
    made = runpy.run_path(str(DOCS / "commands.py"))
    assert (DOCS / "commands.md").read_text() == made["page"](), (
        "python docs/commands.py writes it anew"
    )


@pytest.mark.parametrize("guide", ["android.md", "ios.md"])
def test_the_formula_is_pythons(guide, rng):
    text = (DOCS / "guides" / guide).read_text()
    h, v = (re.search(rf"\b{name} = (.+)", text)[1] for name in ("h", "v"))
    pixel = re.search(r"\((low \+ .+?)\)(\.toFloat\(\))?$", text, re.MULTILINE)[1]
    # All three are integers: of languages whose / drops the rest.
    h, v, pixel = (
        compile(it.replace("/", "//"), guide, "eval") for it in (h, v, pixel)
    )
    for _ in range(20):
        low = int(rng.integers(0, 256))
        numbers = {
            "seed": int(rng.integers(0, 9)),
            "cell": int(rng.integers(1, 9)),
            "low": low,
            "span": int(rng.integers(0, 256 - low)),
        }
        drawn = Pattern(**numbers).draw((11, 9, 3))
        for y, x, c in np.ndindex(drawn.shape):
            names = numbers | {"y": y, "x": x, "c": c}
            names["h"] = eval(h, names)
            names["v"] = eval(v, names)
            assert eval(pixel, names) == drawn[y, x, c]
