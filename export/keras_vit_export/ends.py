"""What a `.tflite` says of its input and its classes, and what is taken where it doesn't."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit_export.pixel_scale import PixelScale
from keras_vit_export.tables import Description
from keras_vit_pixels import fit_array

_SAME = "0..255"


def is_ours(contract: Mapping[str, Any]) -> bool:
    """Whether a file was written by this package, which scales pixels inside it."""
    return "preprocessing" in contract


def find_rule(
    contract: Mapping[str, Any], shape: tuple[int, int, int], name: str
) -> dict[str, Any]:
    """How images are fitted; a plain stretch where the file does not say.

    Args:
        contract: What the file carries of ours.
        shape: (height, width, channels) of its input.
        name: Of the file, in messages.

    Raises:
        ValueError: If the contract asks for what the file can't take.
    """
    height, width, channels = shape
    rule = {
        "image_size": (height, width),
        "channels": channels,
        "resize": "stretch",
        "interpolation": "bilinear",
        "crop": 1.0,
    }
    try:
        rule |= contract.get("preprocessing", {})
        # Before the first use: a rule of another size could ask for any memory.
        if (*rule["image_size"], rule["channels"]) != shape:
            raise ValueError(f"It gives {rule['image_size']}, {rule['channels']}.")
        if channels in (1, 3):  # others take arrays, no image files
            fit_array(np.zeros((1, 1, 1), "uint8"), rule)
    except Exception as error:  # whatever a file may hold
        raise ValueError(
            f"{name} is damaged: its preprocessing does not give images of "
            f"{shape}. {' '.join(str(error).split())[:200]}"
        ) from error
    return rule


def find_scale(
    contract: Mapping[str, Any],
    described: Description,
    taken: Mapping[str, Any],
    given: str,
) -> tuple[PixelScale, str]:
    """What a file takes in place of pixels, and how that is known.

    Args:
        contract: What the file carries of ours.
        described: What it carries of MediaPipe's.
        taken: Its input, as the interpreter describes it.
        given: As `PixelScale.parse` reads it, or empty.

    Returns:
        The scale and its source; `"0..255"` with an empty source where nothing tells.

    Raises:
        ValueError: If what is given contradicts the file.
    """
    channels = int(taken["shape"][-1])
    source = ""
    if is_ours(contract):
        source = "its contract"
    elif np.dtype(taken["dtype"]) == np.uint8:
        source = "its type, uint8"
    if source and given not in ("", _SAME):
        raise ValueError(
            f"The file takes pixels in 0..255, by {source}. Received: "
            f"input_scale={given!r}"
        )
    if given:
        return PixelScale.parse(given, channels), "input_scale"
    mean, std = described.mean, described.std
    if source or not std:
        return PixelScale.parse(_SAME, channels), source
    source = "its NormalizationOptions"
    if not {len(mean), len(std)} <= {1, channels} or not min(std) > 0:
        raise ValueError(f"The file is damaged: {source} are {mean} and {std}.")
    if not any(mean) and set(std) == {1.0}:
        return PixelScale.parse(_SAME, channels), source
    return PixelScale(source, mean, std), source


def find_names(names: Sequence[str], count: int) -> tuple[tuple[str, ...], bool]:
    """A name of its own for each class, and whether they are more than numbers.

    Names that two classes have are told apart: other exporters' ImageNet has two cranes.
    """
    if len(names) != count:
        return tuple(f"class {index}" for index in range(count)), False
    counts = Counter(names)
    told_apart = (
        f"{name} ({index})" if counts[name] > 1 else name
        for index, name in enumerate(names)
    )
    return tuple(told_apart), True
