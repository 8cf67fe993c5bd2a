"""Runs an exported model: NumPy, Pillow and ai-edge-litert, no TensorFlow."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from keras_vit_export import inspection, metadata

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Classifier:
    """A `.tflite` image classifier with its class names and preprocessing.

    Args:
        model: Path of the file, or its bytes.
        num_threads: Threads of the interpreter.

    Raises:
        ValueError: If the file is missing, cut off, or no image classifier.
    """

    def __init__(self, model: str | pathlib.Path | bytes, num_threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        name = "The model" if isinstance(model, bytes) else f"'{model}'"
        content = model if isinstance(model, bytes) else _read(pathlib.Path(model))
        try:
            self.class_names, self.contract = metadata.read(content)
            self._interpreter = Interpreter(
                model_content=content, num_threads=num_threads
            )
            self._interpreter.allocate_tensors()
        except Exception as error:  # a cut-off file fails in many places
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{name} is cut off or is no TFLite model. {reason}"
            ) from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        shape = tuple(int(side) for side in inputs[0]["shape"])
        if len(inputs) != 1 or len(outputs) != 1 or len(shape) != 4 or shape[0] != 1:
            raise ValueError(
                f"{name} must take one image, shape (1, height, width, c). "
                f"Received: {len(inputs)} inputs, the first of shape {shape}"
            )
        self._input, self._output = inputs[0], outputs[0]
        self.size_bytes = len(content)
        self._content = content
        self.preprocessing: dict[str, Any] = {
            "image_size": shape[1:3],
            "channels": shape[3],
            "resize": "stretch",
            "interpolation": "bilinear",
            "crop": 1.0,
        } | self.contract.get("preprocessing", {})
        count = int(self._output["shape"][-1])
        if len(self.class_names) != count:
            self.class_names = tuple(f"class {index}" for index in range(count))

    def __call__(self, path: str | pathlib.Path) -> dict[str, float]:
        """Probability of each class for an image file, the largest first."""
        probabilities = self.probabilities([self.read(path)])[0]
        order = np.argsort(-probabilities, kind="stable")
        return {self.class_names[i]: float(probabilities[i]) for i in order}

    def read(self, path: str | pathlib.Path) -> np.ndarray:
        """Decodes an image file and fits it to the model: uint8 `(height, width, c)`.

        Raises:
            OSError: If the file is no image or is cut off.
        """
        return fit_image(open_image(path), **self.preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images `(height, width, c)`, 0..255."""
        return np.stack([self._run(image) for image in images])

    @property
    def operations(self) -> dict[str, int]:
        """How many of each operation the model has."""
        return inspection.operations(self._content)

    def _run(self, image: np.ndarray) -> np.ndarray:
        pixels = np.asarray(image, self._input["dtype"])[None]
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])[0]


def open_image(path: str | pathlib.Path) -> Image.Image:
    """Decodes an image file whole, turned as its EXIF orientation says.

    Raises:
        OSError: If the file is no image or is cut off.
    """
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image)


def fit_image(
    image: Image.Image,
    image_size: tuple[int, int],
    channels: int,
    resize: str,
    interpolation: str,
    crop: float,
) -> np.ndarray:
    """One image of any size -> uint8 `(height, width, c)`.

    The same rule as `keras_vit.Preprocessing`, with Pillow: resize to
    `image_size / crop`, keeping proportions or not, and keep the middle.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = image_size
    if image.size != (width, height) or crop != 1.0:
        new_width, new_height = width / crop, height / crop
        if resize == "crop":
            scale = max(new_width / image.width, new_height / image.height)
            new_width, new_height = image.width * scale, image.height * scale
        new_size = max(round(new_width), width), max(round(new_height), height)
        image = image.resize(new_size, _FILTERS[interpolation])
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, "uint8").reshape(height, width, channels)


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'.")
    return path.read_bytes()
