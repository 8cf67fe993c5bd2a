"""What a file of this package says of itself, held against what can be. Standard library.

Files come from strangers: each field is one that `keras-vit export` may have written, or
the file is refused. The page has the same rules (`contract.js`).
"""

import re
from collections.abc import Callable
from typing import Any

RESIZES = ("stretch", "crop")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
# A smaller middle of an image is no image any more.
LEAST_CROP = 0.01


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= value < 2**53  # what JavaScript counts exactly


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_part(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


_PREPROCESSING: dict[str, Callable[[Any], bool]] = {
    "image_size": _is_size,
    "channels": _is_count,
    "resize": lambda value: value in RESIZES,
    "interpolation": lambda value: value in INTERPOLATIONS,
    "crop": lambda value: _is_number(value) and LEAST_CROP <= value <= 1,
}
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "recipe": _is_text,
    "top1": _is_part,
    "agreement": _is_part,
    "images": lambda value: value is None or _is_count(value),
    "trained_on": lambda value: isinstance(value, list),
    "sha256": lambda value: bool(re.fullmatch("[0-9a-f]{64}", str(value))),
}


def check_contract(contract: Any) -> dict[str, Any]:
    """The same, if it is one.

    Raises:
        ValueError: If it is not, with the field's name.
    """
    if not isinstance(contract, dict):
        raise ValueError("its contract is no JSON object.")  # noqa: TRY004
    preprocessing = contract.get("preprocessing", {})
    if not isinstance(preprocessing, dict):
        raise ValueError("its preprocessing is no JSON object.")  # noqa: TRY004
    rules = {"": (contract, _FIELDS), "preprocessing": (preprocessing, _PREPROCESSING)}
    for place, (found, fields) in rules.items():
        for name, is_fit in fields.items():
            if name in found and not is_fit(found[name]):
                words = " ".join(filter(None, (place, name)))
                raise ValueError(f"its {words} is {found[name]!r:.80}.")
    if unknown := sorted(preprocessing.keys() - _PREPROCESSING.keys()):
        raise ValueError(f"its preprocessing has {unknown[0]!r:.80}.")
    return contract
