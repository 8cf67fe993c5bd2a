"""Runs a model on one kind of runtime: `runner.py KIND MODEL FOLDER RESULT [FILES ...]`.

In the Python of the runtime's own environment, where there is no TensorFlow, and in a
process for each model, since a runtime may crash. `RESULT` is JSON: `"probabilities"` of
the arrays, and of the image files in these folders of `FOLDER`, the median `"ms"` of an array, the
`"distance"` from the answer in the file's self-test, and what was `"left"` to the CPU.
"""

import atexit
import json
import pathlib
import sys
import time

import numpy as np


class OurClassifier:
    """keras_vit_export's, on whichever interpreter is installed."""

    def __init__(self, model, **options):
        from keras_vit_device.classifier import Classifier

        self._classifier = Classifier(model, **options)
        self.open = self._classifier.read

    def given(self, pixels):
        """What `run` takes, of an array that fits the model."""
        return pixels

    def run(self, image):
        return self._classifier.probabilities([image])[0]


class OnGpu(OurClassifier):
    """`CompiledModel` on the GPU through keras_vit_export, the rest on the CPU."""

    def __init__(self, model):
        super().__init__(model, accelerator="gpu")
        self.left = self._classifier.attempt().reason


class BareInterpreter:
    """`tflite_runtime`'s or ai-edge-litert's interpreter, without our checks."""

    def __init__(self, model):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter

        self._interpreter = Interpreter(str(model), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def open(self, path):
        return _opened(path, self._input["shape"])

    def given(self, pixels):
        return pixels

    def run(self, image):
        pixels = image[None].astype(self._input["dtype"])
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        row = self._interpreter.get_tensor(self._output["index"])[0]
        return _probabilities(row, self._output["quantization"])


class CompiledModel:
    """ai-edge-litert's newer interface."""

    def __init__(self, model):
        from ai_edge_litert.compiled_model import CompiledModel

        self._model = CompiledModel.from_file(str(model))
        (signature,) = self._model.get_signature_list()
        (self._input,) = self._model.get_input_tensor_details(signature).values()
        (self._output,) = self._model.get_output_tensor_details(signature).values()
        self._buffers = (
            self._model.create_input_buffers(0),
            self._model.create_output_buffers(0),
        )

    def open(self, path):
        return _opened(path, self._input["shape"])

    def given(self, pixels):
        return pixels

    def run(self, image):
        (taken,), (given,) = self._buffers
        taken.write(image[None].astype(self._input["dtype"]))
        self._model.run_by_index(0, [taken], [given])
        count = int(np.prod(self._output["shape"]))
        row = given.read(count, np.dtype(self._output["dtype"]).type).reshape(-1)
        # It does not tell the scale; softmax has the same one in all integer models.
        return _probabilities(row, (1 / 256, 0) if row.dtype == np.uint8 else (0, 0))


class MediaPipe:
    """MediaPipe Tasks' `ImageClassifier`, which decodes and resizes by itself."""

    def __init__(self, model):
        from mediapipe.tasks import python as tasks

        vision = tasks.vision
        options = tasks.BaseOptions(model_asset_path=str(model))
        self._classifier = vision.ImageClassifier.create_from_options(
            vision.ImageClassifierOptions(base_options=options)
        )
        atexit.register(self._classifier.close)  # else its end is a traceback

    def open(self, path):
        from mediapipe import Image

        return Image.create_from_file(str(path))

    def given(self, pixels):
        from mediapipe import Image, ImageFormat

        return Image(image_format=ImageFormat.SRGB, data=pixels)

    def run(self, image):
        (head,) = self._classifier.classify(image).classifications
        return [it.score for it in sorted(head.categories, key=lambda it: it.index)]


def _opened(path, shape):
    from keras_vit_device.pixels import fit_image, open_image

    _, height, width, channels = map(int, shape)
    return fit_image(open_image(path), (height, width), channels)


def _probabilities(row, quantization):
    scale, zero_point = quantization
    return (row.astype("float32") - zero_point) * scale if scale else row


KINDS = {
    "Classifier": OurClassifier,
    "Interpreter": BareInterpreter,
    "CompiledModel": CompiledModel,
    "CompiledModel, GPU": OnGpu,
    "MediaPipe": MediaPipe,
}


def _distance(model, runtime, shape):
    """From the answer of the file's self-test to the runtime's, 0..1."""
    from keras_vit_device.self_test import find_self_test
    from keras_vit_device.tflite import metadata

    read = metadata.read(model.read_bytes())
    class_names, contract = read.class_names, read.contract
    test = find_self_test(contract, len(class_names))
    row = np.asarray(runtime.run(runtime.given(test.pattern.draw(shape))))
    return test.judge(row).distance


def main(kind, model, folder, result, *kinds):
    folder = pathlib.Path(folder)
    model = pathlib.Path(model)
    runtime = KINDS[kind](model)
    pixels = np.load(folder / "arrays.npy")
    arrays = [runtime.given(image) for image in pixels]
    runtime.run(arrays[0])  # the first is slower
    probabilities, times = {"arrays": []}, []
    for image in arrays:
        begin = time.perf_counter()
        row = runtime.run(image)
        times.append(1000 * (time.perf_counter() - begin))
        probabilities["arrays"].append(row)
    for files in kinds:
        paths = sorted((folder / files).iterdir())
        probabilities[files] = [runtime.run(runtime.open(path)) for path in paths]
    lists = {name: np.asarray(it).tolist() for name, it in probabilities.items()}
    content = {
        "probabilities": lists,
        "ms": float(np.median(times)),
        "distance": _distance(model, runtime, pixels[0].shape),
        "left": getattr(runtime, "left", ""),
    }
    pathlib.Path(result).write_text(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
