"""Layers that are set otherwise while a block runs, and then as before."""

import contextlib
from collections.abc import Iterator, Sequence

import keras


@contextlib.contextmanager
def switch(
    layers: Sequence[keras.Layer], attribute: str, value: bool
) -> Iterator[None]:
    """While the block runs, this attribute of these layers has this value."""
    changed = [layer for layer in layers if getattr(layer, attribute) != value]
    try:
        for layer in changed:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer in changed:
            setattr(layer, attribute, not value)
