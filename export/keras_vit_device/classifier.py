"""Runs an exported model: NumPy, Pillow and ai-edge-litert, no TensorFlow.

`tflite_runtime` takes ai-edge-litert's place where that is what is installed.
"""

import dataclasses
import pathlib
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from keras_vit_device import accelerators, meaning
from keras_vit_device.files import existing_file
from keras_vit_device.latency import Latency
from keras_vit_device.meaning import Meaning
from keras_vit_device.pixel_scale import doubt
from keras_vit_device.pixels import ImageFile, check_pixels, fit_array, read_image
from keras_vit_device.self_test import UselessError, Verdict, find_self_test
from keras_vit_device.terminal import say
from keras_vit_device.tflite import ends, labels
from keras_vit_device.tflite.file import open_file


class Classifier:
    """A `.tflite` image classifier with its class names and preprocessing.

    Threads of Python may share one: they take turns.

    Args:
        model: Path of the file, or its bytes.
        num_threads: Threads of the interpreter.
        accelerator: `"cpu"`; `"gpu"`; or `"auto"` for the fastest that passes the
            file's self-test, which is said in one line.
        input_scale: What a file of another make takes in place of pixels in 0..255, as
            `PixelScale.parse` reads it; what its metadata say, if empty.
        logits: Whether a file of another make gives logits.
        class_names: Name of each class; those in the file, if `()`.
        self_test: Whether the file must pass its self-test where it runs, which costs
            one inference; under `"auto"` it must. A file that carries none runs on the
            CPU as it is, and on a GPU with a warning.

    Attributes:
        scale: What a file of another make takes; that of ours is `"0..255"`.
        scale_source: How `scale` is known; empty if nothing tells, and `"0..255"` is
            taken.
        is_guess: Whether `scale` is only likely.
        remarks: What is to be said of the file's class names, a line each.
        named: Whether the classes have names.
        trained_on: What the file says of its training (`keras_vit.data.trained_on`).
        accelerator: What it runs on, `"cpu"` or `"gpu"`.
        verdict: Of the self-test there, or `None` if there was none.

    Raises:
        ValueError: If the file is missing, damaged, cut off, or no image classifier, or
            fails its self-test.
        RuntimeError: If there is no interpreter, or not the accelerator that was asked
            for.
    """

    def __init__(
        self,
        model: str | pathlib.Path | bytes,
        num_threads: int = 1,
        *,
        accelerator: str = "cpu",
        self_test: bool = True,
        input_scale: str = "",
        logits: bool = False,
        class_names: Sequence[str] = (),
    ):
        if num_threads < 1:
            raise ValueError(f"num_threads must be positive. Received: {num_threads}")
        if accelerator not in accelerators.CHOICES:
            raise ValueError(
                f"accelerator must be one of {', '.join(accelerators.CHOICES)}. "
                f"Received: {accelerator!r}"
            )
        name = "The model" if isinstance(model, bytes) else f"'{model}'"
        content = (
            model if isinstance(model, bytes) else existing_file(model).read_bytes()
        )
        self._file = open_file(content, num_threads, name)
        self._turn = threading.Lock()
        self.size_bytes = len(content)
        self.content = content
        self.contract = self._file.attached.contract
        self.trained_on: list[dict] = self.contract.get("trained_on", [])
        self.preprocessing = ends.find_rule(self._file)
        found = ends.find_scale(self._file, input_scale)
        self.scale, self.scale_source = found.scale, found.source
        self.is_guess, self._in_bytes = found.is_guess, found.in_bytes
        self._logits = logits
        names, self.remarks = ends.find_names(self._file, class_names)
        self.name_classes(names)
        for line in (*self.remarks, self.doubt):
            if line:
                warnings.warn(f"{name}: {line}", stacklevel=2)
        self.accelerator, self.verdict = "cpu", None
        self._meaning: Meaning | None = None
        self._gpu: accelerators.Gpu | None = None
        try:
            self.self_test = find_self_test(self.contract, len(self.class_names))
        except UselessError as error:
            raise ValueError(f"{name} is damaged: {error}") from error
        self._take(accelerator, name, self_test)

    def _take(self, accelerator: str, name: str, check: bool) -> None:
        """Moves to where it shall run, and passes the self-test there."""
        if accelerator == "auto":
            say(f"{name} runs on {self._take_fastest(name)}", file=sys.stderr)
        elif accelerator == "gpu":
            self._take_gpu(name, check)
        elif check and self.self_test is not None:
            self.verdict = self._pass_self_test(name, "CPU")

    @classmethod
    def of_flatbuffer(cls, content: bytes, num_threads: int = 1) -> Self:
        """A model of this package that carries no contract yet: probabilities."""
        classifier = cls(content, num_threads, input_scale="0..255")
        classifier.meaning = Meaning(meaning.PROBABILITIES, "this package")
        return classifier

    def name_classes(self, names: Sequence[str]) -> None:
        """Gives the classes their names, each its own; numbers if `()`."""
        count = self._file.num_classes
        self.named = bool(names)
        self.class_names = labels.told_apart(names or [""] * count)

    @property
    def doubt(self) -> str:
        """What to say of a range of pixels that nothing tells for sure, else nothing."""
        return doubt(self.scale, self.scale_source, self.is_guess)

    def judge(self, probabilities: np.ndarray) -> Verdict:
        """Holds an answer to `test_image` against the one that the file carries."""
        return self.self_test.judge(probabilities)

    @property
    def test_image(self) -> np.ndarray:
        """The self-test's pattern, uint8 `(height, width, c)`; black without one."""
        if self.self_test is None:
            return np.zeros(self._file.shape, "uint8")
        return self.self_test.pattern.draw(self._file.shape)

    def attempt(
        self,
        images: np.ndarray | None = None,
        patience: float = accelerators.PATIENCE,
    ) -> accelerators.Trial:
        """What the model does on the GPU, tried in a process of its own.

        Args:
            images: Pixels `(count, height, width, c)`; `test_image` if not given.
            patience: Seconds after which it is taken to hang.
        """
        images = self.test_image[None] if images is None else images
        trial = accelerators.attempt(self.content, self._as_taken(images), patience)
        if trial.rows is None:
            return trial
        rows = self._as_probabilities(self._file.output_type.numbers(trial.rows))
        return dataclasses.replace(trial, rows=rows)

    def _pass_self_test(self, name: str, place: str) -> Verdict:
        """The verdict of the self-test where the model runs now.

        Raises:
            ValueError: If it fails, with both answers.
        """
        verdict = self.judge(self._run(self.test_image))
        if not verdict.passed:
            raise ValueError(
                f"{name} fails its self-test on the {place}: "
                f"{verdict.explain(self.class_names)}."
            )
        return verdict

    def _take_gpu(self, name: str, check: bool) -> None:
        """Moves to the GPU, once a process of its own has shown that it lives there."""
        trial = self.attempt()
        if trial.rows is None:
            raise RuntimeError(f"{name} can't run on the GPU: {trial.reason}.")
        self._gpu, self.accelerator = accelerators.Gpu(self.content), "gpu"
        if check and self.self_test is None:
            warnings.warn(
                f"{name} carries no self-test: what the GPU answers is unchecked.",
                stacklevel=3,
            )
        elif check:
            self.verdict = self._pass_self_test(name, "GPU")

    def _take_fastest(self, name: str) -> str:
        """Takes the fastest accelerator that passes the self-test, and says why."""
        if self.self_test is None:
            return "the CPU: it carries no self-test to try others with."
        self.verdict = self._pass_self_test(name, "CPU")
        trial = self.attempt()
        if trial.rows is None:
            return f"the CPU, not on the GPU: {trial.reason}."
        verdict = self.judge(trial.rows[0])
        if not verdict.passed:
            told = verdict.explain(self.class_names)
            return f"the CPU: the GPU fails the self-test, {told}."
        times = {"cpu": self.benchmark(10).median_ms, "gpu": trial.ms}
        said = f"CPU {times['cpu']:.2f} ms, GPU {times['gpu']:.2f} ms"
        if accelerators.fastest(times) == "cpu":
            return f"the CPU, which is faster: {said}."
        self._gpu, self.accelerator = accelerators.Gpu(self.content), "gpu"
        self.verdict = self._pass_self_test(name, "GPU")
        return f"the GPU, which passes the self-test: {said}."

    @property
    def meaning(self) -> Meaning:
        """What the file's numbers are; of other makes, by what they are for patterns."""
        if self._meaning is None:
            found = self._find_meaning()
            self._meaning = meaning.as_said(found) if self._logits else found
        return self._meaning

    @meaning.setter
    def meaning(self, found: Meaning) -> None:
        self._meaning = found

    def _find_meaning(self) -> Meaning:
        if self._file.attached.is_ours:
            return Meaning(meaning.PROBABILITIES, "its contract")
        rows = self.output(meaning.patterns(self._file.shape))
        self._example = rows[0]
        if self._file.attached.description.calibrated:
            source = "its metadata want a score calibration"
            return Meaning(meaning.UNKNOWN, source)
        return meaning.of_rows(rows, self._file.output_type.scale)

    def check_meaning(self) -> None:
        """Raises a `ValueError` if the file's numbers aren't those of a classifier."""
        if not self.meaning.is_known:
            raise ValueError(
                meaning.explain(self.meaning, self._example, self.class_names)
            )

    def __call__(self, image: ImageFile | np.ndarray) -> dict[str, float]:
        """Probability of each class for what `read` takes, the largest first."""
        probabilities = self.probabilities([self.read(image)])[0]
        return dict(most_probable(self.class_names, probabilities))

    def read(self, image: ImageFile | np.ndarray) -> np.ndarray:
        """Fits an image to the model: uint8 `(height, width, c)`.

        Args:
            image: Image file, its content as bytes, or an image of Pillow; or a frame
                of any size, grey `(rows, columns)` or `(rows, columns, 1)`, or RGB
                `(rows, columns, 3)`, uint8. OpenCV's frames are BGR: give
                `frame[..., ::-1]`.

        Raises:
            UnreadableError: An OSError, as of `pixels.open_image`.
            ValueError: If the array is no such frame.
        """
        if not isinstance(image, np.ndarray):
            return read_image(image, self.preprocessing)
        frame = image[..., None] if image.ndim == 2 else image
        if (
            frame.ndim != 3
            or frame.shape[-1] not in (1, 3)
            or frame.size == 0
            or frame.dtype != np.uint8
        ):
            raise ValueError(
                "A frame must be uint8, (rows, columns) or with 1 or 3 channels last. "
                f"Received: shape {image.shape}, type {image.dtype}"
            )
        return fit_array(frame, self.preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(b, num_classes)` of images that fit the model.

        Args:
            images: Each `(height, width, c)` in 0..255. Of any number of files,
                `map(classifier.read, paths)` holds one at a time.

        Raises:
            ValueError: If an image has another shape or is scaled already, the model
                can't be run, or it is unknown what its numbers mean.
        """
        rows = [self._run(image) for image in images]
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), "f4")

    def output_of(self, numbers: np.ndarray) -> np.ndarray:
        """What the model gives for images that are scaled already."""
        taken, given = self._file.input_type, self._file.output_type
        rows = [given.numbers(self._file.run(taken.store(it))) for it in numbers]
        return np.stack(rows)

    def output(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """What the model itself gives: probabilities, or of other makes any numbers."""
        return np.stack([self._numbers(image) for image in images])

    def benchmark(self, rounds: int = 50) -> Latency:
        """Times the model on noise, after five rounds that warm up.

        Args:
            rounds: How often it is run.

        Raises:
            ValueError: If the rounds are not positive.
        """
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, self._file.shape, "uint8")
        return Latency.of(lambda: self._run(image), rounds)

    @property
    def ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The input and the output as the interpreter describes them."""
        return self._file.taken, self._file.given

    @property
    def operations(self) -> dict[str, dict[str, int]]:
        """How many of each operation the model has, by precision.

        Needs ai-edge-litert.
        """
        # Not at the top: a device may have `tflite_runtime` alone.
        from keras_vit_device.tflite import operations

        return operations.operations(self.content)

    def _run(self, image: np.ndarray) -> np.ndarray:
        image = np.asarray(image)
        check_pixels(image)
        return self._as_probabilities(self._numbers(image))

    def _numbers(self, image: np.ndarray) -> np.ndarray:
        run = self._file.run if self._gpu is None else self._gpu
        with self._turn:
            row = run(self._as_taken(image))
        if not np.isfinite(row).all():
            raise ValueError("The model can't be run. It gives NaN or infinity.")
        return self._file.output_type.numbers(row)

    def _as_taken(self, images: np.ndarray) -> np.ndarray:
        """Pixels as the model takes them."""
        if self._in_bytes:
            return np.asarray(images, self._file.input_type.kind)
        scaled = images if self.scale.name == "0..255" else self.scale(images)
        return self._file.input_type.store(scaled)

    def _as_probabilities(self, row: np.ndarray) -> np.ndarray:
        self.check_meaning()
        if self.meaning.kind == meaning.PROBABILITIES:
            return row
        row = np.exp(row - row.max(axis=-1, keepdims=True))
        return row / row.sum(axis=-1, keepdims=True)


def most_probable(
    class_names: Sequence[str], probabilities: np.ndarray, count: int | None = None
) -> list[tuple[str, float]]:
    """Names and probabilities of the first `count` classes, the largest first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(class_names[i], float(probabilities[i])) for i in order]
