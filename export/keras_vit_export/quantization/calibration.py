"""Ranges of activations, chosen by measured error on real images."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from keras_vit_device.tflite.operations import Operation, read_operations
from tqdm import tqdm

from keras_vit_export.activations import Activations
from keras_vit_export.quantization.recipes import QuantizationRecipe

# Images that ranges are measured on, and the fewest that mean anything.
IMAGES = 64
LEAST_IMAGES = 8
# Rows of the last axis, a token each, that are kept of every tensor and image.
_ROWS = 4
# Numbers of each tensor that clipping is tried on.
_TRIED = 2**15
# These move numbers about, so what goes in and what comes out share one scale.
_MOVES = (
    "RESHAPE",
    "TRANSPOSE",
    "SPLIT",
    "SLICE",
    "STRIDED_SLICE",
    "MAX_POOL_2D",
    "CONCATENATION",
    "PACK",
    "PAD",
    "RELU",
)

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What one tensor held for the calibration images.

    Attributes:
        low: Least value.
        high: Greatest value.
        rows: Some rows of its last axis, `(rows, channels)`.
    """

    low: float
    high: float
    rows: np.ndarray


def collect(float_model: bytes, images: np.ndarray) -> dict[str, Statistics]:
    """Runs a float `.tflite` on images and keeps statistics of every activation.

    Args:
        float_model: The file's content.
        images: Uint8 `(count, height, width, c)`.

    Raises:
        ValueError: If there are fewer than `LEAST_IMAGES` images.
    """
    check_count(images)
    operations = read_operations(float_model)
    names = {name for it in operations for name in (*it.inputs, *it.outputs)}
    activations = Activations(float_model, names)
    rng = np.random.default_rng(0)
    low = defaultdict(lambda: np.inf)
    high = defaultdict(lambda: -np.inf)
    rows = defaultdict(list)
    for image in tqdm(images, desc="Calibrating", leave=False, delay=2, disable=None):
        for name, value in activations(image).items():
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
            value = np.atleast_1d(value)
            tokens = value.reshape(-1, value.shape[-1])
            rows[name].append(tokens[rng.integers(0, len(tokens), _ROWS)])
    return {
        name: Statistics(low[name], high[name], np.concatenate(rows[name]))
        for name in low
    }


def check_count(images: np.ndarray) -> None:
    """Raises ValueError if there are fewer than `LEAST_IMAGES` images."""
    if len(images) < LEAST_IMAGES:
        raise ValueError(
            f"Calibration needs at least {LEAST_IMAGES} images. Received: {len(images)}"
        )


def min_max(values: np.ndarray, low: float, high: float, levels: int) -> Range:
    """All that was seen."""
    return low, high


def percentile(values: np.ndarray, low: float, high: float, levels: int) -> Range:
    """All but one in ten thousand at each end."""
    bounds = np.percentile(values, [0.01, 99.99])
    return min(bounds[0], 0.0), max(bounds[1], 0.0)


def mse(values: np.ndarray, low: float, high: float, levels: int) -> Range:
    """The range with the least mean squared error: first its upper end, then the lower.

    Clipping what is rare makes steps smaller for all the rest.
    """
    parts = np.linspace(1.0, 0.2, 33)
    high = min(
        (high * part for part in parts),
        key=lambda bound: _error(values, low, bound, levels),
    )
    low = min(
        (low * part for part in parts),
        key=lambda bound: _error(values, bound, high, levels),
    )
    return low, high


def _symmetric_mse(values: np.ndarray, bound: float, levels: int) -> Range:
    best = min(
        (bound * part for part in np.linspace(1.0, 0.2, 33)),
        key=lambda bound: _error(values, -bound, bound, levels),
    )
    return -best, best


def _error(values, low, high, levels) -> float:
    step = max(high - low, 1e-30) / levels
    rounded = np.rint(np.clip(values, low, high) / step) * step
    return float(np.mean((values - rounded) ** 2))


METHODS: dict[str, Callable[[np.ndarray, float, float, int], Range]] = {
    "min_max": min_max,
    "percentile": percentile,
    "mse": mse,
}


def ranges(
    statistics: dict[str, Statistics],
    operations: list[Operation],
    recipe: QuantizationRecipe,
    method: str,
) -> dict[str, Range]:
    """The range of every activation that a recipe quantizes.

    Args:
        statistics: Of the float model.
        operations: Of the float model.
        recipe: Its rules say how many bits a tensor gets.
        method: Name of one of `METHODS`, for 8 bits; 16 bits keep all that was seen.
    """
    groups = _groups(operations, recipe)
    bits = defaultdict(lambda: 16)
    centred = set()
    for operation in operations:
        rule = recipe.rule_for(operation.kind, operation.scope)
        if rule is None or not rule.activations:
            continue
        for name in (*operation.inputs, *operation.outputs):
            bits[groups[name]] = min(bits[groups[name]], rule.activations)
        if operation.kind == "BATCH_MATMUL":
            # Its fast kernel wants zero point 0 of what stands on the right.
            centred.update(groups[name] for name in operation.inputs[1:])
    members = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    found = {}
    for group, names in members.items():
        if group not in bits:
            continue
        seen = [statistics[name] for name in names if name in statistics]
        chosen = _choose(seen, bits[group], group in centred, method)
        found |= dict.fromkeys(names, chosen)
    first = operations[0].inputs[0]
    return found | {first: (0.0, 255.0)}  # raw pixels: a scale of exactly 1


def _choose(seen: list[Statistics], bits: int, centred: bool, method: str) -> Range:
    low = min(0.0, *(it.low for it in seen), 0.0)
    high = max(0.0, *(it.high for it in seen), 0.0)
    if bits == 16:
        return _no_power_of_two(low, high)
    values = np.concatenate([it.rows.ravel() for it in seen])
    if len(values) > _TRIED:
        # Not every n-th, which are of a few channels alone where n divides the width.
        values = np.random.default_rng(0).choice(values, _TRIED, replace=False)
    levels = 2**bits - 1
    if not centred:
        return METHODS[method](values, low, high, levels)
    if method == "mse":
        low, high = _symmetric_mse(values, max(-low, high), levels)
    else:
        low, high = METHODS[method](values, low, high, levels)
    bound = max(-low, high)
    # One step more below zero: then the zero point comes out as exactly 0.
    return -bound * 128 / 127, bound


def _no_power_of_two(low: float, high: float) -> Range:
    """A range of 16 bits, wider by a hundredth where its scale is a power of two.

    Where LiteRT takes all scales of an ADD or SUB for such powers (-1..1 is within its
    tolerance, 1e-3 in log2) it refuses sums larger than what is added (`add.cc`).
    """
    bound = max(-low, high)
    exponent = np.log2(bound / 32767) if bound else 0.5
    near = abs(exponent - round(exponent)) < 2e-3
    return (1.01 * low, 1.01 * high) if near else (low, high)


def _groups(operations: list[Operation], recipe: QuantizationRecipe) -> dict[str, str]:
    """For each tensor the name of one whose scale it shares, over operations of
    `_MOVES` that the recipe quantizes."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for operation in operations:
        names = [*operation.inputs, *operation.outputs]
        rule = recipe.rule_for(operation.kind, operation.scope)
        moves = operation.kind in _MOVES and rule is not None and rule.activations
        for name in names:
            if moves:
                leader[find(name)] = find(names[0])
            find(name)
    return {name: find(name) for name in leader}
