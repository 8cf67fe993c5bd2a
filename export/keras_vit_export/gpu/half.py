"""What 16-bit floats, as GPUs and NPUs compute in, make of a float `.tflite`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras_vit_device.tflite.operations import read_operations

from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.gpu.machine import (
    NOTHING,
    Machine,
    Peak,
    UnknownOperationError,
    larger,
)


@dataclasses.dataclass(frozen=True)
class Half:
    """What 16-bit floats make of a model.

    Attributes:
        images: Number of images it ran on.
        snr_db: Power of the exact logits over the error's, sums in 32 bits.
        snr_of_short_sums_db: The same with sums in 16 bits.
        activation: Largest absolute value of any tensor.
        square: Largest square in a norm.
        sum_of_squares: Largest sum of squares in a norm.
        subnormals: Part of all values but 0 that lie below the least normal number.
        sums: Largest sum of squares of each norm, by the name of its squares:
            `"block_00_mlp_norm/Mul"`.
        overflows: Names of the tensors that become infinite, the first one first.
        unknown: Operations that NumPy is not told how to run; then nothing else is known.
    """

    images: int = 0
    snr_db: float = -math.inf
    snr_of_short_sums_db: float = -math.inf
    activation: Peak = NOTHING
    square: Peak = NOTHING
    sum_of_squares: Peak = NOTHING
    subnormals: float = 0.0
    sums: Mapping[str, float] = dataclasses.field(default_factory=dict)
    overflows: tuple[str, ...] = ()
    unknown: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the report; JSON types, so an SNR of infinite answers is `None`."""
        if self.unknown:
            return {"unknown": self.unknown}
        peaks = ("activation", "square", "sum_of_squares")
        ratios = {
            "snr_db": self.snr_db,
            "snr_of_short_sums_db": self.snr_of_short_sums_db,
        }
        return {
            "images": self.images,
            **{name: it if math.isfinite(it) else None for name, it in ratios.items()},
            "subnormals": self.subnormals,
            "overflows": list(self.overflows),
        } | {
            name: {
                "largest": (peak := getattr(self, name)).value,
                "at": peak.name,
                "headroom_bits": peak.headroom_bits,
            }
            for name in peaks
        }


def examine(float_model: bytes, images: np.ndarray) -> Half:
    """Runs a float `.tflite` in 16-bit floats.

    Args:
        float_model: The file's content.
        images: Pixels `(count, height, width, c)`, one or more.
    """
    try:
        return _examine_file(float_model, images)
    except UnknownOperationError as error:  # of a model of another make
        return Half(unknown=str(error))


def _examine_file(float_model: bytes, images: np.ndarray) -> Half:
    name = logits_name(read_operations(float_model))
    exact = read_all(float_model, [name], images)[name]
    long, short = Machine(float_model), Machine(float_model, short_sums=True)
    rows, worst = [], 0
    for index, image in enumerate(images):
        before = long.sum_of_squares
        rows.append(long(image)[name])
        worst = index if long.sum_of_squares.value > before.value else worst
    # Short sums take a second and more an image, so they get the one with the largest.
    row = short(images[worst])[name]
    return Half(
        images=len(images),
        snr_db=_snr(exact, np.stack(rows)),
        snr_of_short_sums_db=_snr(exact[worst], row),
        activation=larger(long.activation, short.activation),
        square=long.square,
        sum_of_squares=long.sum_of_squares,
        subnormals=long.subnormals / max(long.counted, 1),
        sums=long.sums,
        overflows=tuple(dict.fromkeys([*short.overflows, *long.overflows])),
    )


def short_probabilities(float_model: bytes, image: np.ndarray) -> np.ndarray:
    """Probabilities `(num_classes,)` of an image in 16-bit floats; NaN if unknown."""
    try:
        *_, row = Machine(float_model)(image).values()
    except UnknownOperationError:
        return np.array(np.nan)
    return row[0]


def _snr(exact: np.ndarray, found: np.ndarray) -> float:
    return snr_db(exact, found) if np.isfinite(found).all() else -math.inf
