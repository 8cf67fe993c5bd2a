"""Positions for another number of patches, patches of another size: once, at load.

Both are products with small matrices, since resizing is linear and goes along one axis
after the other.
"""

import numpy as np

# Whose way of resizing positions it is.
POSITION_MODES = ("bicubic_antialias", "bicubic", "bicubic_corners", "dinov2", "linear")


def resize_positions(
    positions: np.ndarray,
    grid: tuple[int, int],
    new_grid: tuple[int, int],
    mode: str,
) -> np.ndarray:
    """Positions of patches, as an image of d channels brought to another size.

    Args:
        positions: Of patches alone, no prefix tokens, shape `(1, rows * columns, d)`.
        grid: Rows and columns that they are of.
        new_grid: Rows and columns that are wanted.
        mode: `"bicubic_antialias"` (timm), `"bicubic"` (Hugging Face),
            `"bicubic_corners"` (torchvision: the corners stay the corners), `"dinov2"`
            (bicubic, the scale enlarged by a tenth of a patch) or `"linear"` (Google:
            the corners stay the corners).

    Returns:
        Shape `(1, new rows * new columns, d)`; the very same if the grid is.
    """
    if grid == new_grid:
        return positions
    image = positions.reshape(*grid, -1).astype("float64")
    along_rows, along_columns = (
        _MATRICES[mode](old, new) for old, new in zip(grid, new_grid, strict=True)
    )
    image = np.einsum("ir,jc,rcd->ijd", along_rows, along_columns, image, optimize=True)
    return image.reshape(1, -1, positions.shape[-1]).astype("float32")


def resize_patches(kernel: np.ndarray, side: int) -> np.ndarray:
    """Patch weights for patches of another side that see the same in a resized image.

    With B the matrix that resizes an image of one patch, the new weights are
    pinv(B^T) w: where images get larger, <B x, pinv(B^T) w> = <x, w> for every patch x.
    B resizes rows and columns alike, so its pseudo-inverse does too.

    Args:
        kernel: Weights `(p, p, c, d)`.
        side: The new p, in pixels.

    Returns:
        Shape `(side, side, c, d)`; the very same if the side is.

    Source: https://arxiv.org/abs/2212.08013, section 3.4 (PI-resize).
    """
    old = kernel.shape[0]
    if old == side:
        return kernel
    inverse = np.linalg.pinv(_bilinear(old, side).T)  # (side, old)
    resized = np.einsum("ip,jq,pqcd->ijcd", inverse, inverse, kernel, optimize=True)
    return resized.astype("float32")


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: https://ieeexplore.ieee.org/document/1163711, equation 4."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


def _taps(centres: np.ndarray, old: int, kernel, reach: int) -> np.ndarray:
    """Matrix `(new, old)` of a kernel around centres; what lies outside is the edge."""
    matrix = np.zeros((len(centres), old))
    first = np.floor(centres).astype(int) - reach + 1
    for step in range(2 * reach):
        weights = kernel(centres - (first + step))
        columns = np.clip(first + step, 0, old - 1)
        np.add.at(matrix, (np.arange(len(centres)), columns), weights)
    return matrix


def _half_pixel(new: int, scale: float) -> np.ndarray:
    """Where the middles of new pixels lie among old ones; scale is old over new."""
    return (np.arange(new) + 0.5) * scale - 0.5


def _bicubic(old: int, new: int) -> np.ndarray:
    return _taps(_half_pixel(new, old / new), old, lambda x: _cubic(x, -0.75), 2)


def _dinov2(old: int, new: int) -> np.ndarray:
    centres = _half_pixel(new, old / (new + 0.1))
    return _taps(centres, old, lambda x: _cubic(x, -0.75), 2)


def _bilinear(old: int, new: int) -> np.ndarray:
    return _taps(_half_pixel(new, old / new), old, _triangle, 1)


def _corners(old: int, new: int) -> np.ndarray:
    """Where new pixels lie among old ones if the first and the last are the same."""
    return np.arange(new) * ((old - 1) / max(new - 1, 1))


def _linear(old: int, new: int) -> np.ndarray:
    return _taps(_corners(old, new), old, _triangle, 1)


def _bicubic_corners(old: int, new: int) -> np.ndarray:
    return _taps(_corners(old, new), old, lambda x: _cubic(x, -0.75), 2)


def _bicubic_antialias(old: int, new: int) -> np.ndarray:
    """Where fewer are wanted, the kernel is as much wider; weights outside are cut."""
    widened = max(old / new, 1.0)
    centres = _half_pixel(new, old / new)
    offsets = (np.arange(old)[None] - centres[:, None]) / widened
    weights = _cubic(offsets, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)


_MATRICES = {
    "bicubic_antialias": _bicubic_antialias,
    "bicubic": _bicubic,
    "bicubic_corners": _bicubic_corners,
    "dinov2": _dinov2,
    "linear": _linear,
}
