"""Runs an exported model: NumPy, Pillow and ai-edge-litert, no TensorFlow."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_vit_export import inspection, metadata
from keras_vit_pixels import fit_image, open_image


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
        self._input, self._output = self._check(name)
        shape = tuple(int(side) for side in self._input["shape"])
        self.size_bytes = len(content)
        self.content = content
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

    def _check(self, name: str) -> tuple[dict, dict]:
        """The one input and the one output, if they are an image classifier's."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        tensors = [*inputs, *outputs]
        ranks = [len(tensor["shape"]) for tensor in tensors]
        types = [np.dtype(tensor["dtype"]).name for tensor in tensors]
        if (
            (len(inputs), len(outputs), ranks) != (1, 1, [4, 2])
            or inputs[0]["shape"][0] != 1
            or types[0] not in ("float32", "uint8")
            or types[1] not in ("float32", "uint8")
        ):
            raise ValueError(
                f"{name} is no image classifier: one image (1, height, width, c) of "
                "float32 or uint8 in, one row (1, classes) of the same out. Received: "
                f"ranks {ranks}, types {types}"
            )
        return inputs[0], outputs[0]

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
    def operations(self) -> dict[str, dict[str, int]]:
        """How many of each operation the model has, by precision."""
        return inspection.operations(self.content)

    def _run(self, image: np.ndarray) -> np.ndarray:
        pixels = np.asarray(image, self._input["dtype"])[None]
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        row = self._interpreter.get_tensor(self._output["index"])[0]
        scale, zero_point = self._output["quantization"]
        if not scale:
            return row
        return (row.astype("float32") - np.float32(zero_point)) * np.float32(scale)


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'.")
    return path.read_bytes()
