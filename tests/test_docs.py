"""The pattern that the guides for phones draw is the one that files are tested with."""

import pathlib
import re

import numpy as np
import pytest
from keras_vit_device.self_test import Pattern

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("guide", ["android.md", "ios.md"])
def test_the_formula_is_pythons(guide, rng):
    text = (DOCS / guide).read_text()
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
