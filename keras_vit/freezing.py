"""Layers that are trained for a while, or frozen for a while."""

import contextlib
from collections.abc import Iterator, Sequence

import keras


@contextlib.contextmanager
def trainable(layers: Sequence[keras.Layer], value: bool) -> Iterator[None]:
    """While the block runs, these layers are trained, or frozen; then as before."""
    changed = [layer for layer in layers if layer.trainable != value]
    try:
        for layer in changed:
            layer.trainable = value
        yield
    finally:
        for layer in changed:
            layer.trainable = not value
