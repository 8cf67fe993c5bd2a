"""What a user's numbers and words must be, each refused in one line."""

import collections
import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises a `ValueError` that lists `choices`, the nearest to `value` first."""
    choices = list(choices)
    if value in choices:
        return
    choices = list(map(str, choices))
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    ordered = near + [choice for choice in choices if choice not in near]
    raise ValueError(f"{name} must be one of {', '.join(ordered)}. Received: {value!r}")


def check_integer(name: str, value: Any, least: int) -> int:
    """`value` as a plain integer: NumPy's are welcome, booleans are not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} must be an integer >= {least}. Received: {value!r}")
    return number


def check_positive(name: str, value: Any) -> None:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive. Received: {value!r}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_sequence(name: str, value: Any) -> tuple:
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    if not listed:
        raise ValueError(f"{name} must be a list or a tuple. Received: {value!r}")
    return tuple(value)


def check_class_names(class_names: tuple[str, ...], num_classes: int) -> None:
    """Raises a `ValueError` unless there is one name a class, each its own, or none."""
    if class_names and len(class_names) != num_classes:
        raise ValueError(
            "class_names must name every class. Received: "
            f"{len(class_names)} names, num_classes={num_classes}"
        )
    for name in class_names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(
                f"class_names must be printable words on one line. Received: {name!r}"
            )
    counts = collections.Counter(class_names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"class_names must differ. Received twice: {twice}")


def check_rate(name: str, value: float) -> None:
    """Raises a `ValueError` unless `value` is in [0, 1)."""
    if not is_number(value) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1). Received: {value!r}")
