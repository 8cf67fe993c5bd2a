"""Where a token comes from: learned, sinusoidal and sin-cos positions."""

import keras
import numpy as np
from keras import layers, ops


def sinusoidal_1d(length: int, width: int) -> np.ndarray:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos of the same.

    Args:
        length: Number of positions n.
        width: Width d of a position; even.

    Returns:
        Float64 array of shape `(n, d)`.

    Raises:
        ValueError: If the width is odd.

    Source: https://arxiv.org/abs/1706.03762, section 3.5.
    """
    if width % 2:
        raise ValueError(f"width must be even. Received: width={width}")
    position = np.arange(length)[:, None]
    angle = position / 10000.0 ** (np.arange(0, width, 2) / width)  # (n, d / 2)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, width)


def sincos_2d(rows: int, columns: int, width: int) -> np.ndarray:
    """[sin(x w), cos(x w), sin(y w), cos(y w)] with w_i = 10000^(-i / (d/4 - 1)).

    Each of the four parts is d / 4 wide; x is the patch's column, y its row.

    Args:
        rows: Patches along the height.
        columns: Patches along the width.
        width: Width d of a position; 4 divides it.

    Returns:
        Float64 array of shape `(rows * columns, d)`, row by row.

    Raises:
        ValueError: If 4 does not divide the width.

    Source: https://arxiv.org/abs/2205.01580, section 2; the order of the parts is that
        of its published code, big_vision's `posemb_sincos_2d`.
    """
    if width % 4:
        raise ValueError(f"4 must divide width. Received: width={width}")
    quarter = width // 4
    frequency = 10000.0 ** (-np.arange(quarter) / max(quarter - 1, 1))
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) * frequency  # 2 x (n, d / 4)
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


@keras.saving.register_keras_serializable(package="keras_vit")
class LearnedPositions(layers.Layer):
    """tokens + P, with P learned.

    Input shape: `(b, n, d)`.  Output shape: `(b, n, d)`.

    Source: https://arxiv.org/abs/2010.11929, equation 1.
    """

    def build(self, input_shape):
        _, count, width = input_shape
        self.positions = self.add_weight(
            shape=(1, count, width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="positions",
        )

    def call(self, tokens):
        return tokens + self.positions


class _FixedPositions(layers.Layer):
    """tokens + P, with P computed once from the shape of the tokens."""

    def table(self, count: int, width: int) -> np.ndarray:
        raise NotImplementedError

    def build(self, input_shape):
        _, count, width = input_shape
        self.positions = self.table(count, width)[None]  # (1, n, d)

    def call(self, tokens):
        return tokens + ops.convert_to_tensor(self.positions, tokens.dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class Sinusoidal1DPositions(_FixedPositions):
    """tokens + PE, the fixed table of `sinusoidal_1d`.

    Input shape: `(b, n, d)`, d even.  Output shape: `(b, n, d)`.

    Raises:
        ValueError: If the width is odd.

    Source: https://arxiv.org/abs/1706.03762, section 3.5.
    """

    def table(self, count, width):
        return sinusoidal_1d(count, width)


@keras.saving.register_keras_serializable(package="keras_vit")
class SinCos2DPositions(_FixedPositions):
    """patches + PE, the fixed table of `sincos_2d`.

    Args:
        grid: Patches along the height and along the width.

    Input shape: `(b, n, d)`, 4 divides d.  Output shape: `(b, n, d)`.

    Raises:
        ValueError: If the grid has not n patches, or 4 does not divide the width.

    Source: https://arxiv.org/abs/2205.01580, section 2.
    """

    def __init__(self, grid: tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)

    def table(self, count, width):
        rows, columns = self.grid
        if rows * columns != count:
            raise ValueError(
                "grid must have one place for each patch. Received: "
                f"grid={self.grid}, {count} patches"
            )
        return sincos_2d(rows, columns, width)

    def get_config(self):
        return super().get_config() | {"grid": self.grid}
