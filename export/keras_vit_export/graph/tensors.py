"""Slices and constants that every accelerator reads alike."""

import numpy as np
import tensorflow as tf


def rows(x: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """Some tokens `(1, count, d)` of `(1, n, d)`."""
    if (first, count) == (0, x.shape[1]):
        return x
    return tf.slice(x, (0, first, 0), (1, count, x.shape[2]))


def meeting(x: tf.Tensor, array: np.ndarray | float) -> tf.Tensor:
    """A constant that is joined with x elementwise: of x's rank, whatever its own."""
    array = np.asarray(array)
    return constant(array.reshape((1,) * (x.shape.rank - array.ndim) + array.shape))


def constant(array: np.ndarray) -> tf.Tensor:
    """A constant of 32-bit floats."""
    return tf.constant(np.asarray(array), tf.float32)
