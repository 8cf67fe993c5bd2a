"""What a `.tflite` says of its input and its classes, and what is taken where it doesn't."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit_device.pixel_scale import PixelScale, common
from keras_vit_device.tflite.end_types import FLOAT
from keras_vit_device.tflite.file import OpenedFile

_SAME = "0..255"
# Part of a range by which that of a quantized input may miss it: images that it was
# measured on may lack the darkest and the brightest.
_NEAR = 0.05


@dataclasses.dataclass(frozen=True)
class InputScale:
    """What a file takes in place of pixels, and how that is known.

    Attributes:
        scale: Of pixels in 0..255.
        source: How it is known, in words; empty if nothing tells, and 0..255 is taken.
        is_guess: Whether it is only the nearest of the common ranges.
        in_bytes: Whether the file takes pixels as they are, whatever its integers
            stand for.
    """

    scale: PixelScale
    source: str = ""
    is_guess: bool = False
    in_bytes: bool = False


def find_rule(file: OpenedFile) -> dict[str, Any]:
    """How images are fitted; a plain stretch where the file does not say.

    Raises:
        ValueError: If the file's contract asks for what the file can't take.
    """
    height, width, channels = shape = file.shape
    rule = {
        "image_size": (height, width),
        "channels": channels,
        "resize": "stretch",
        "interpolation": "bilinear",
        "crop": 1.0,
    }
    rule |= file.attached.contract.get("preprocessing", {})
    given = (*rule["image_size"], rule["channels"])
    # Before the first use: a rule of another size could ask for any memory.
    if given != shape:
        raise ValueError(
            f"{file.name} is damaged: its preprocessing gives images of {given}, and it "
            f"takes {shape}."
        )
    return rule


def find_scale(file: OpenedFile, given: str) -> InputScale:
    """What a file takes in place of pixels.

    Args:
        file: Of any make.
        given: As `PixelScale.parse` reads it, or empty.

    Raises:
        ValueError: If what is given contradicts the file.
    """
    channels = file.shape[-1]
    same = PixelScale.parse(_SAME, channels)
    source = _why_pixels(file)
    if source:
        _check_given(given, (_SAME,), f"The file takes pixels in 0..255, by {source}.")
        return InputScale(same, source, in_bytes=True)
    if file.input_type.kind != FLOAT:
        return _scale_of_integers(file, given)
    if given:
        return InputScale(PixelScale.parse(given, channels), "input_scale")
    described = file.attached.description
    mean, std = described.mean, described.std
    if not std:
        return InputScale(same)
    source = "its NormalizationOptions"
    if not {len(mean), len(std)} <= {1, channels} or not min(std) > 0:
        raise ValueError(f"The file is damaged: {source} are {mean} and {std}.")
    if not any(mean) and set(std) == {1.0}:
        return InputScale(same, source)
    return InputScale(PixelScale(source, mean, std), source)


def _why_pixels(file: OpenedFile) -> str:
    """What says that a file takes pixels as they are; empty if nothing does."""
    if file.attached.is_ours:
        return "its contract"
    if file.input_type.kind != "uint8":
        return ""
    if not file.input_type.scale:
        return "its type, uint8"
    # MediaPipe gives bytes to every file of them that has its metadata.
    return "its metadata and its type, uint8" if file.attached.description.std else ""


def _scale_of_integers(file: OpenedFile, given: str) -> InputScale:
    """By the range of numbers that the integers of an input stand for."""
    span, channels = file.input_type.span, file.shape[-1]
    ranges = common(channels)
    told = f"{span[0]:.4g}..{span[1]:.4g}"
    meant = [it for it in ranges if _misses(span, it) <= _NEAR]
    if meant:
        source = f"its quantization, whose range is {told}"
        words = f"The file takes pixels as {meant[0].name}, by {source}."
        _check_given(given, (_SAME, meant[0].name), words)
        return InputScale(meant[0], source)
    if given:
        scale = PixelScale.parse(given, channels)
        if not _holds(scale, span):
            raise ValueError(
                f"The file's integers stand for {told}, which are no pixels in that "
                f"range. Received: input_scale={given!r}"
            )
        return InputScale(scale, "input_scale")
    # Images that were measured had fewer shades: of the ranges that hold theirs, the
    # narrowest.
    fit = [it for it in ranges if _holds(it, span)]
    if not fit:
        return InputScale(ranges[0])
    narrowest = min(fit, key=lambda scale: np.ptp(scale.span()))
    return InputScale(narrowest, f"its quantization, of {told},", is_guess=True)


def _check_given(given: str, allowed: Sequence[str], words: str) -> None:
    if given and given not in allowed:
        raise ValueError(f"{words} Received: input_scale={given!r}")


def _misses(span: tuple[float, float], scale: PixelScale) -> float:
    """By what part of a scale's range its ends are missed."""
    low, high = scale.span()
    return max(abs(span[0] - low), abs(span[1] - high)) / (high - low)


def _holds(scale: PixelScale, span: tuple[float, float]) -> bool:
    """Whether pixels can have given these numbers; 0 is always among a file's."""
    low, high = scale.span()
    spare = _NEAR * (high - low)
    return min(low, 0.0) - spare <= span[0] and span[1] <= high + spare


def find_names(
    file: OpenedFile, given: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, and what there is to say of those in the file.

    Args:
        file: Of any make.
        given: Names that go before the file's, or `()`.

    Returns:
        The names, `()` if there are none; and remarks, a line each.

    Raises:
        ValueError: If there is not one given for each class.
    """
    count, attached = file.num_classes, file.attached
    if given and len(given) != count:
        raise ValueError(
            f"class_names must name {count} classes. Received: {len(given)}"
        )
    names = given or attached.class_names
    if len(names) in (0, count):
        return tuple(names), () if given else attached.remarks
    line = (
        f"The file names {len(names)} classes and has {count}: its names aren't used."
    )
    return (), (*attached.remarks, line)
