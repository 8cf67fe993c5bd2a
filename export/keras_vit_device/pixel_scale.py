"""What a model takes in place of pixels 0..255. NumPy only."""

import dataclasses
from typing import Self

import numpy as np

# More than any training gives a model: means and deviations in the wrong unit do.
_LARGEST = 50.0
# (mean, std, BGR) in pixels. The third is PyTorch's, the last that of Keras' ResNet50,
# VGG and DenseNet: `keras.applications.imagenet_utils.preprocess_input`, its modes.
_NAMED = {
    "0..255": ((0.0,), (1.0,), False),
    "0..1": ((0.0,), (255.0,), False),
    "-1..1": ((127.5,), (127.5,), False),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False),
    "caffe": ((103.939, 116.779, 123.68), (1.0,), True),
}


@dataclasses.dataclass(frozen=True)
class PixelScale:
    """(pixel - mean) / std of each channel, of pixels in 0..255.

    Attributes:
        name: What it is called, as in `--input-scale`.
        mean: One number, or one a channel, in pixels.
        std: Likewise; positive.
        bgr: Whether blue comes first; mean and std are then in that order too.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    @classmethod
    def parse(cls, text: str, channels: int) -> Self:
        """Reads `"0..1"`, `"-1..1"`, `"imagenet"`, `"caffe"`, `"0..255"` or `"127.5,127.5"`.

        Args:
            text: A name; or mean and std in pixels, one number or one a channel each,
                as MediaPipe's NormalizationOptions have them.
            channels: Of the model's images.

        Raises:
            ValueError: If it is none of these, or not for so many channels.
        """
        if text in _NAMED:
            mean, std, bgr = _NAMED[text]
        else:
            numbers = _numbers(text)
            half = len(numbers) // 2
            mean, std, bgr = numbers[:half], numbers[half:], False
        scale = cls(text, mean, std, bgr)
        if not {len(mean), len(std)} <= {1, channels} or (bgr and channels != 3):
            raise ValueError(
                f"input_scale must be for the model's {channels} channels. Received: "
                f"{text!r}"
            )
        largest = np.abs(scale(np.array([[0.0], [255.0]]) * np.ones(channels))).max()
        if text not in _NAMED and largest > _LARGEST:
            raise ValueError(
                "input_scale is in pixels of 0..255, such as 127.5,127.5 for -1..1. "
                f"Received: {text!r}, which makes numbers up to {largest:.0f}"
            )
        return scale

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels `(..., c)` in 0..255 -> float32 of the same shape, as the model takes it."""
        pixels = np.asarray(pixels, "float32")
        pixels = pixels[..., ::-1] if self.bgr else pixels
        return (pixels - np.float32(self.mean)) / np.float32(self.std)

    def span(self) -> tuple[float, float]:
        """The least and the largest number that pixels become."""
        mean, std = np.broadcast_arrays(self.mean, self.std)
        ends = (np.array([[0.0], [255.0]]) - mean) / std
        return float(ends.min()), float(ends.max())


def common(channels: int) -> list[PixelScale]:
    """What models are commonly trained on, `"0..255"` first."""
    return [
        PixelScale(name, *parts)
        for name, parts in _NAMED.items()
        if {len(parts[0]), len(parts[1])} <= {1, channels}
    ]


def doubt(scale: PixelScale, source: str, is_guess: bool) -> str:
    """What to say of a scale that nothing tells for sure, else nothing.

    Args:
        scale: That is taken.
        source: How it is known; empty if nothing tells.
        is_guess: Whether it is only likely.
    """
    other = "input_scale (--input-scale) says another."
    if not source:
        return (
            "Nothing in the model says what range its pixels have: "
            f"{scale.name} is taken for granted; {other}"
        )
    if is_guess:
        return f"By {source} pixels are likely of {scale.name}, which is taken; {other}"
    return ""


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    half = len(numbers) // 2
    if not half or len(numbers) % 2 or not np.isfinite(numbers).all():
        numbers = ()
    if not numbers or min(numbers[half:]) <= 0:
        raise ValueError(
            f"input_scale must be {', '.join(_NAMED)}, or MEAN,STD in pixels with a "
            f"positive STD. Received: {text!r}"
        )
    return numbers
