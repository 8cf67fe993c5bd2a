"""What becomes of an image before it is the input of a model."""

import dataclasses
from typing import Any

from keras_vit_device.tflite.contract import INTERPOLATIONS, LEAST_CROP, RESIZES

from keras_vit.config.checks import check_choice, check_integer, is_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What becomes of an image of any size before it is the input of a model.

    The image is resized to `image_size / crop` and the middle is kept: `"stretch"`
    ignores the image's proportions, `"crop"` keeps them and cuts off what is too long.
    Pixels stay in 0..255: their scaling is the model's first layer.

    Args:
        image_size: Height and width of the model's input in pixels; an integer is the
            side of a square.
        channels: 1 for grey, 3 for colour; NumPy arrays may have any number.
        resize: `"stretch"` or `"crop"`.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`; the last two average
            over all pixels that a smaller image covers (antialias).
        crop: Part of the resized image's side that is kept, in [0.01, 1].

    Raises:
        ValueError: If a field is out of its range.
    """

    image_size: int | tuple[int, int]
    channels: int = 3
    resize: str = "stretch"
    interpolation: str = "bilinear"
    crop: float = 1.0

    def __post_init__(self):
        size = self.image_size
        if not isinstance(size, (tuple, list)):
            size = (size, size)
        if len(size) != 2:
            raise ValueError(
                "image_size must be an integer or (height, width). "
                f"Received: {self.image_size!r}"
            )
        size = tuple(check_integer("image_size", side, 1) for side in size)
        object.__setattr__(self, "image_size", size)
        channels = check_integer("channels", self.channels, 1)
        object.__setattr__(self, "channels", channels)
        check_choice("resize", self.resize, RESIZES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        if not is_number(self.crop) or not LEAST_CROP <= self.crop <= 1.0:
            raise ValueError(
                f"crop must be in [{LEAST_CROP}, 1]. Received: {self.crop!r}"
            )

    @property
    def rule(self) -> dict[str, Any]:
        """These fields alone, as keywords of `keras_vit_device.pixels.fit_image`."""
        names = (field.name for field in dataclasses.fields(Preprocessing))
        return {name: getattr(self, name) for name in names}
