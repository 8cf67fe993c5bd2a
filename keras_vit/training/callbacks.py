"""What happens beside the training steps: averaging, history, best model, checkpoints."""

import csv
import io
import pathlib
import resource
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_vit_device.files import whole_file

from keras_vit.files import load_model, save_model
from keras_vit.training.runs import checkpoints


class NoNumberError(RuntimeError):
    """A loss that is infinite or no number, which a lower learning rate may mend."""


class Progress(keras.callbacks.Callback):
    """Counts the steps, and ends training at one whose loss is no number.

    Args:
        done: Number of steps done before.
    """

    def __init__(self, done: int = 0):
        super().__init__()
        self.done = done

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.done += 1
        if not np.isfinite(float(logs["loss"])):
            raise NoNumberError(
                f"The loss became {float(logs['loss'])} at step {self.done}; a lower "
                "learning rate may help."
            )


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Validates and saves the moving average of the weights, to the last bit.

    Keras' own callback swaps two numbers by adding and subtracting them, which rounds:
    what is saved would not quite be what was validated.
    """

    def __init__(self):
        super().__init__(swap_on_epoch=True)

    def _tf_swap_variables(self, optimizer: keras.optimizers.Optimizer) -> None:
        for variable, average in zip(
            optimizer._trainable_variables,
            optimizer._model_variables_moving_average,
            strict=True,
        ):
            value = tf.identity(variable.value)
            variable.assign(average.value)
            average.assign(value)


class History(keras.callbacks.Callback):
    """One row for each epoch, also as `history.csv`, which is whole at any moment.

    Args:
        path: Where the file goes, or `None`.
        rows: Those of the epochs before.
    """

    def __init__(
        self,
        path: pathlib.Path | None = None,
        rows: list[dict[str, float]] | None = None,
    ):
        super().__init__()
        self.path = path
        self.rows = list(rows or [])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = {name: float(value) for name, value in sorted(logs.items())}
        self.rows.append({"epoch": epoch + 1, **figures})
        if self.path:
            text, columns = io.StringIO(), self.columns
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
            with whole_file(self.path) as partial:
                partial.write_text(text.getvalue())

    @property
    def columns(self) -> dict[str, list[float]]:
        """Figures that all epochs have, by name: other callbacks may come and go."""
        first, *others = self.rows or [{}]
        names = [name for name in first if all(name in row for row in others)]
        return {name: [row[name] for row in self.rows] for name in names}


class BestModel(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and a whole `.keras` file of them.

    Best is the highest accuracy on the validation images and, among equals, the lowest
    loss. Keras' own ModelCheckpoint writes in place, so a kill while it writes loses the
    best model; it also keeps the first of equally accurate epochs.

    Args:
        kept: The model to be kept, which need not be the one that `fit` is called on.
        path: Where the `.keras` file goes, or `None`.
        epoch: Number of the best epoch before, or 0.
        score: Its accuracy and negative loss, or `None`.
        patience: Epochs without a better one after which training ends; 0 for never.
        keep: `"best"`, or `"last"` for the last epoch whose loss is a number.
        write: Whether this worker writes the file.
    """

    def __init__(
        self,
        kept: keras.Model,
        path: pathlib.Path | None = None,
        epoch: int = 0,
        score: tuple[float, float] | None = None,
        patience: int = 0,
        keep: str = "best",
        write: bool = True,
    ):
        super().__init__()
        self.patience = patience
        self.keep = keep
        self.write = write
        self.num_kept = kept
        self.path = path
        self.epoch = epoch
        self.score = score and tuple(score)
        self._weights = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        score = (float(logs["val_accuracy"]), -float(logs["val_loss"]))
        better = self.score is None or score > self.score or self.keep == "last"
        if better and np.isfinite(score[1]):
            self.epoch, self.score = epoch + 1, score
            self._weights = self.num_kept.get_weights()
            if self.path and self.write:
                save_model(self.num_kept, self.path)
        if self.patience and epoch + 1 - self.epoch >= self.patience:
            self.model.stop_training = True

    def restore(self) -> None:
        """Gives the model the best weights back.

        Raises:
            NoNumberError: If there are none, as no epoch's loss was a number.
        """
        if self.score is None:
            raise NoNumberError(
                "The loss of the validation images was never a number; a lower learning "
                "rate may help."
            )
        if self._weights is None:  # of an epoch before this process
            self._weights = load_model(self.path).get_weights()
        self.num_kept.set_weights(self._weights)


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint when an epoch begins, and every so many steps.

    Stands behind `Progress` and `AveragedWeights`.

    Args:
        run: The run's folder.
        steps_per_epoch: Steps of an epoch.
        every: Steps between checkpoints within an epoch; 0 for none.
        progress: Says how many steps are done.
        history: Its rows go into the checkpoint.
        best: Its score goes into the checkpoint.
        write: Whether this worker writes.
        restore: Whether the first epoch begins from a checkpoint.
    """

    def __init__(
        self,
        run: pathlib.Path,
        steps_per_epoch: int,
        every: int,
        progress: Progress,
        history: History,
        best: BestModel,
        write: bool = True,
        restore: bool = False,
    ):
        super().__init__()
        self.run = run
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.progress = progress
        self.history = history
        self.best = best
        self.write = write
        self._resumed = restore

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._resumed:
            # Keras has just set the metrics to zero; half an epoch may be in them.
            best = self.best.path if self.write else None
            checkpoints.restore(self.run, self.progress.done, self.model, best)
            self._resumed = False
        elif self.progress.done:
            self._save()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        between = self.progress.done % self.steps_per_epoch
        if self.every and between and between % self.every == 0:
            self._save()

    def _save(self) -> None:
        best = {"epoch": self.best.epoch, "score": self.best.score}
        notes = {"history": self.history.rows, "best": best}
        checkpoints.save(
            self.run,
            self.model,
            self.progress.done,
            notes,
            best=self.best.path,
            write=self.write,
        )


class RestOfEpoch(keras.callbacks.Callback):
    """Ends an epoch that an earlier process began, when its last step is done.

    Keras would find that out by a step that gets no images, and cut that off. With XLA
    nothing of it was done then; without, on several devices, whatever does not depend
    on images was: dropout's state had moved on, the metrics had counted. Stands behind
    all others.

    Args:
        steps: How many are left.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.left -= 1
        if self.left == 0:  # below it in later epochs
            raise StopIteration  # as an iterator does; `fit` ends the epoch


class Pace(keras.callbacks.Callback):
    """How fast the steps were, and how long they waited for their images.

    Args:
        batch_size: Images a step.

    Attributes:
        spans: When each step began and ended, in seconds.
    """

    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size = batch_size
        self._made: list[float] = []
        self.spans: list[tuple[float, float]] = []
        self._begin = 0.0

    def stamp(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches, noting when each was made."""
        made = self._made  # TensorFlow keeps `note` for ever, so not the model too

        def note(_):
            made.append(time.perf_counter())
            return np.int64(0)

        def stamped(images, targets):
            mark = tf.numpy_function(note, [targets[0, 0]], tf.int64)
            with tf.control_dependencies([mark]):
                return tf.identity(images), targets

        return batches.map(stamped)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.spans.append((self._begin, time.perf_counter()))

    @property
    def figures(self) -> dict[str, Any]:
        """Images a second and the part of the time that steps waited for images.

        The first steps, which compile, are left out.
        """
        # Those after the last step were made ahead of time.
        pairs = list(zip(self.spans, self._made, strict=False))
        pairs = pairs[min(2, len(pairs) - 1) :]
        busy = sum(end - begin for (begin, end), _ in pairs)
        waits = [min(max(at - begin, 0), end - begin) for (begin, end), at in pairs]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "images_per_second": len(pairs) * self.batch_size / max(busy, 1e-9),
            "waiting": sum(waits) / max(busy, 1e-9),
            "peak_memory_bytes": peak,
        }
