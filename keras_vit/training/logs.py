"""What shows a run: TensorBoard's curves, pages of training and of test images."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_vit import pictures
from keras_vit.data.pipeline import ImageData
from keras_vit.evaluation import Evaluation
from keras_vit.training.augmentation.random_changes import Augmentation
from keras_vit.training.callbacks import Pace
from keras_vit.training.recipes import TrainingRecipe

SHOWN = 32


class TensorBoardLogs(keras.callbacks.Callback):
    """Curves of a run and a page of its training images, as TensorBoard reads them.

    Loss and accuracy stand in `train/` and `validation/`, so that TensorBoard draws each
    pair in one chart. They are written as plain summaries, which need TensorFlow alone;
    Keras' own callback fails where the `tensorboard` package is absent.

    Args:
        folder: Where the two folders go.
        pace: Says when steps began and ended.
        page: PNG of training images, or `None`.
    """

    def __init__(
        self, folder: pathlib.Path, pace: Pace, page: pathlib.Path | None = None
    ):
        super().__init__()
        self.folder = folder
        self.pace = pace
        self.page = page
        self._writers = {}
        self._before = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        for part in ("train", "validation"):
            path = str(self.folder / part)
            self._writers[part] = tf.summary.create_file_writer(path)
        if self.page:
            image = tf.compat.v1.Summary.Image(
                encoded_image_string=self.page.read_bytes()
            )
            value = tf.compat.v1.Summary.Value(tag="training images", image=image)
            self._write("train", [value], step=0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._before = len(self.pace.spans)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = {"train": {}, "validation": {}}
        for name, value in logs.items():
            part = "validation" if name.startswith("val_") else "train"
            figures[part][name.removeprefix("val_")] = float(value)
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        figures["train"]["learning rate"] = float(rate)
        seconds = sum(end - begin for begin, end in self.pace.spans[self._before :])
        images = self.pace.batch_size * (len(self.pace.spans) - self._before)
        figures["train"]["images a second"] = images / seconds
        for part, named in figures.items():
            values = [
                tf.compat.v1.Summary.Value(tag=name, simple_value=value)
                for name, value in named.items()
            ]
            self._write(part, values, step=epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write(self, part: str, values: list, step: int) -> None:
        with self._writers[part].as_default():
            summary = tf.compat.v1.Summary(value=values).SerializeToString()
            tf.summary.experimental.write_raw_pb(summary, step)
        self._writers[part].flush()


def draw_training_page(
    data: ImageData, recipe: TrainingRecipe, seed: int, path: pathlib.Path
) -> None:
    """A page of training images as the first step may see them, with their targets.

    Args:
        data: Its `sample` is shown.
        recipe: Says how images are changed.
        seed: The run's.
        path: Where the PNG goes.
    """
    images, labels = next(iter(data.sample))
    augment = Augmentation(recipe, len(data.class_names), seed)
    images, targets = augment(tf.constant(0, tf.int64), images, labels)
    # Files of a folder come class by class, so not the first ones.
    rows = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
    captions = [_mixture(target, data.class_names) for target in targets.numpy()[rows]]
    pictures.draw_images(
        np.clip(images.numpy()[rows], 0, 255), captions, "Training images", path
    )


def _mixture(target: np.ndarray, class_names: tuple[str, ...]) -> str:
    """`"cat"`, or after mixing `"cat 70%"` and `"dog 30%"`, a line each."""
    present = [index for index in np.argsort(-target) if target[index] > 0.005]
    if len(present) == 1:
        return class_names[present[0]]
    return "\n".join(f"{class_names[index]} {target[index]:.0%}" for index in present)


def draw_test_page(
    batches: tf.data.Dataset, evaluation: Evaluation, path: pathlib.Path
) -> None:
    """A page of test images: 32 at random, then up to 8 of the surest mistakes."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    surest = wrong[np.argsort(-evaluation.probabilities[wrong].max(axis=1))][:8]
    rest = np.setdiff1d(np.arange(len(evaluation.labels)), surest)
    random = np.random.default_rng(0).permutation(rest)[:32]
    rows = np.concatenate([random, surest]).astype(int)
    images = _rows_of(batches, rows)
    page = Evaluation(
        evaluation.labels[rows], evaluation.probabilities[rows], evaluation.class_names
    )
    title = (
        f"{len(wrong)} of {len(evaluation.labels)} test images wrong "
        f"(top-1 {evaluation.top1:.1%}); {len(random)} at random, then "
        f"mistakes, the surest first ({len(surest)})"
    )
    pictures.draw_predictions(images, page, title, path)


def _rows_of(batches: tf.data.Dataset, rows: np.ndarray) -> np.ndarray:
    wanted = set(rows.tolist())
    examples = batches.unbatch().enumerate().as_numpy_iterator()
    found = {row: image for row, (image, _) in examples if row in wanted}
    return np.stack([found[row] for row in rows])
