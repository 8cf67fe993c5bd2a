"""What the operations of a `.tflite` give for an image."""

import warnings
from collections.abc import Iterable

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from keras_vit_device.tflite.operations import Operation


class Activations:
    """Runs a `.tflite` and reads tensors inside it, as floats whatever they hold.

    Args:
        model: The file's content.
        names: Tensors to read; those that the model lacks are left out.
        num_threads: Threads of the interpreter.
    """

    def __init__(self, model: bytes, names: Iterable[str], num_threads: int = 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about memory, which is what we want
            self._interpreter = Interpreter(
                model_content=model,
                num_threads=num_threads,
                experimental_preserve_all_tensors=True,
            )
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        details = self._interpreter.get_tensor_details()
        wanted = set(names)
        self._details = {it["name"]: it for it in details if it["name"] in wanted}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Tensors by name for an image `(height, width, c)`, pixels in 0..255."""
        self._interpreter.set_tensor(
            self._input["index"], np.asarray(image, self._input["dtype"])[None]
        )
        self._interpreter.invoke()
        return {name: self._read(detail) for name, detail in self._details.items()}

    def _read(self, detail) -> np.ndarray:
        value = self._interpreter.get_tensor(detail["index"])
        scale, zero_point = detail["quantization"]
        if not np.issubdtype(value.dtype, np.integer) or not scale:
            return value
        return (value.astype("float32") - zero_point) * scale


def logits_name(operations: list[Operation]) -> str:
    """The tensor that the last softmax reads; the output where there is none."""
    last = operations[-1]
    return last.inputs[0] if last.kind == "SOFTMAX" else last.outputs[0]


def read_all(model: bytes, names: Iterable[str], images: np.ndarray) -> dict:
    """Tensors by name, stacked over the images: `(images, ...)` each."""
    activations = Activations(model, names)
    rows = [activations(image) for image in images]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def snr_db(signal: np.ndarray, approximation: np.ndarray) -> float:
    """10 log10 of the signal's power over that of the difference; at most 200 dB."""
    signal = np.asarray(signal, np.float64)
    noise = np.sum((signal - approximation) ** 2)
    power = np.sum(signal**2)
    return float(10 * np.log10(max(power, 1e-300) / max(noise, power * 1e-20, 1e-300)))
