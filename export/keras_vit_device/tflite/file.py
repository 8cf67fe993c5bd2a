"""A `.tflite` that was opened: its interpreter, its two ends, and what it carries."""

import dataclasses
from typing import Any

import numpy as np

from keras_vit_device import interpreters
from keras_vit_device.pixels import check_channels_last
from keras_vit_device.terminal import one_line
from keras_vit_device.tflite import metadata
from keras_vit_device.tflite.end_types import KINDS, EndType
from keras_vit_device.tflite.metadata import Attached


@dataclasses.dataclass(frozen=True)
class OpenedFile:
    """An image classifier that can be run.

    Attributes:
        name: Of the file, in messages.
        content: All of it.
        attached: What it carries behind and beside the model.
        interpreter: Ready to run.
        taken: Its input, as the interpreter describes it.
        given: Its output, likewise.
    """

    name: str
    content: bytes
    attached: Attached
    interpreter: Any
    taken: dict[str, Any]
    given: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of its images."""
        return tuple(int(side) for side in self.taken["shape"][1:])

    @property
    def num_classes(self) -> int:
        """How many numbers it gives."""
        return int(self.given["shape"][-1])

    @property
    def input_type(self) -> EndType:
        """How it holds what it takes."""
        return EndType.of(self.taken)

    @property
    def output_type(self) -> EndType:
        """How it holds what it gives."""
        return EndType.of(self.given)

    def run(self, image: np.ndarray) -> np.ndarray:
        """The output `(classes,)` as it comes, for `(height, width, c)` of the input's type.

        Raises:
            ValueError: If the interpreter can't run it, or the image does not fit.
        """
        self.interpreter.set_tensor(self.taken["index"], image[None])
        try:
            self.interpreter.invoke()
        except RuntimeError as error:  # damage that no digest could tell
            reason = one_line(error, 200)
            raise ValueError(f"The model can't be run. {reason}") from error
        return self.interpreter.get_tensor(self.given["index"])[0]


def open_file(content: bytes, num_threads: int, name: str) -> OpenedFile:
    """Opens the bytes of a `.tflite`.

    Args:
        content: The file.
        num_threads: Threads of the interpreter.
        name: Of the file, in messages.

    Raises:
        ValueError: If it is damaged, cut off, or no image classifier of a fixed size.
        RuntimeError: If there is no interpreter.
    """
    interpreter = interpreters.find()
    try:
        attached = metadata.read(content)
        is_whole = "sha256" in attached.contract
        started = interpreters.start(interpreter, content, num_threads, is_whole)
    except metadata.DamagedError as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    except interpreters.RefusedError as error:
        raise ValueError(f"{name}{error}") from error
    except Exception as error:  # a cut-off file fails in many places
        reason = one_line(error, 200)
        raise ValueError(
            f"{name} is cut off or is no TFLite model. {reason}"
        ) from error
    inputs, outputs = started.get_input_details(), started.get_output_details()
    _check(inputs, outputs, name)
    return OpenedFile(name, content, attached, started, inputs[0], outputs[0])


def _check(inputs: list[dict], outputs: list[dict], name: str) -> None:
    """Whether the one input and the one output are an image classifier's."""
    tensors = [*inputs, *outputs]
    ranks = [len(tensor["shape"]) for tensor in tensors]
    types = [EndType.of(tensor) for tensor in tensors]
    fits = (len(inputs), len(outputs), ranks) == (1, 1, [4, 2])
    if not fits or inputs[0]["shape"][0] != 1 or not all(it.is_usable for it in types):
        scales = ", ".join(f"{it.kind} of scale {it.scale:g}" for it in types)
        raise ValueError(
            f"{name} is no image classifier: one image (1, height, width, c) in, one "
            f"row (1, classes) out, of {', '.join(KINDS)}, the last two with a scale. "
            f"Received: ranks {ranks}, types {scales}"
        )
    check_channels_last(tuple(map(int, inputs[0]["shape"][1:])), name)
