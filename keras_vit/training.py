"""Training around `model.compile` and `model.fit`: recipe in, best model out."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_vit import runs
from keras_vit.config import ViTConfig
from keras_vit.evaluation import Evaluation, gives_probabilities
from keras_vit.files import save_model
from keras_vit.model import config_of
from keras_vit.pipeline import ImageData

# Matched against the last part of a variable's path: biases, norms, LayerScale, tokens
# and positions are not pulled to zero. https://arxiv.org/abs/2106.10270, section 3.3.
NOT_DECAYED = ("bias", "gamma", "beta", "token", "positions", "probe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train a small Vision Transformer from scratch on small images.

    Args:
        epochs: Passes over the training images.
        learning_rate: Peak of the learning rate, reached after the warm-up; it then
            falls to zero along a cosine.
        warmup: Part of all steps in which the learning rate rises from zero.
        weight_decay: AdamW's decay, of weight matrices only.
        label_smoothing: Part of the target spread evenly over all classes.
        ema_momentum: Momentum of the moving average of the weights, a step; the average
            is what is validated and kept. 0 for none.
        translation: Largest random shift, as a part of the image's side.
        flip: Whether images are mirrored at random; wrong for digits and letters.

    Raises:
        ValueError: If a field is out of its range.

    Sources: https://arxiv.org/abs/2012.12877, table 9, and
        https://arxiv.org/abs/2104.05704, section 4, in their lightest form.
    """

    epochs: int = 60
    learning_rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    ema_momentum: float = 0.99
    translation: float = 0.125
    flip: bool = False

    def __post_init__(self):
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"epochs must be an integer >= 1. Received: {self.epochs}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be positive. Received: {self.learning_rate}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"weight_decay must not be negative. Received: {self.weight_decay}"
            )
        for name in ("warmup", "label_smoothing", "ema_momentum", "translation"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name} must be in [0, 1). Received: {getattr(self, name)}"
                )


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What `train` gives back; the model itself holds the best weights.

    Attributes:
        history: Loss and accuracy of each epoch, by column.
        best_epoch: Number of the epoch whose weights were kept, from 1.
        evaluation: Predictions of the test images by those weights.
        seconds: Duration of `model.fit`.
    """

    history: dict[str, list[float]]
    best_epoch: int
    evaluation: Evaluation
    seconds: float


def train(
    model: keras.Model,
    data: ImageData,
    recipe: TrainingRecipe | None = None,
    *,
    output: str | pathlib.Path | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
) -> TrainingRun:
    """Trains a model that `build_vit` made and keeps its best weights.

    Best means the highest accuracy on the validation images and, among equals, the
    lowest loss.

    Args:
        model: Built by `build_vit` for the images of `data`.
        data: Images of the model's size.
        recipe: How to train; the default recipe if `None`.
        output: New folder for `model.keras`, `history.csv`, `curves.png`,
            `predictions.png`, `confusion.png` and `run.json`. The first two are up to
            date after every epoch, so an interrupted run leaves what it finished.
        seed: Seed of augmentation, dropout and drop path; the model has its first
            weights already.
        verbose: Of `model.fit`.

    Raises:
        ValueError: If the folder already holds something, or model and data differ in
            their classes.
        RuntimeError: If the loss became infinite or no number.
    """
    recipe = recipe or TrainingRecipe()
    config = config_of(model)
    _check_classes(config, data)
    folder = None if output is None else runs.new_folder(output)
    _seed_everything(model, seed)
    steps = recipe.epochs * len(data.train)
    model.compile(
        optimizer=make_optimizer(recipe, steps),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=config.head_output == "logits",
            label_smoothing=recipe.label_smoothing,
        ),
        metrics=["accuracy"],
        jit_compile=True,  # Keras' "auto" leaves XLA off on a CPU.
    )
    best = BestModel(folder and folder / "model.keras")
    start = time.monotonic()
    try:
        history = model.fit(
            data.train.map(_training_batch(recipe, config.num_classes, seed)),
            validation_data=data.validation.map(_one_hot(config.num_classes)),
            epochs=recipe.epochs,
            callbacks=_callbacks(recipe, best, folder),
            shuffle=False,  # the data set shuffles itself
            verbose=verbose,
        ).history
        _check_finite(history)
    except BaseException:
        if folder:
            runs.leave_what_was_finished(folder)
        raise
    seconds = time.monotonic() - start
    best.restore()
    evaluation = evaluate(model, data.test, data.class_names)
    run = TrainingRun(history, best.epoch, evaluation, seconds)
    if folder:
        settings = {
            "config": dataclasses.asdict(config),
            "recipe": dataclasses.asdict(recipe),
            "seed": seed,
            "best_epoch": run.best_epoch,
            "seconds": round(seconds, 1),
        }
        runs.write(folder, data, history, evaluation, settings)
    return run


def evaluate(
    model: keras.Model, batches: tf.data.Dataset, class_names: tuple[str, ...]
) -> Evaluation:
    """Predicts every image of a data set of (images, labels) batches."""
    labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    output = model.predict(batches.map(lambda images, _: images), verbose=0)
    if not gives_probabilities(output):
        output = np.asarray(keras.ops.softmax(output))
    return Evaluation(labels, output, tuple(class_names))


def make_optimizer(recipe: TrainingRecipe, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with warm-up, cosine and no decay of biases, norms, tokens, positions."""
    warmup = round(recipe.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe.learning_rate,
        decay_steps=max(steps - warmup, 1),
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=recipe.weight_decay,
        use_ema=recipe.ema_momentum > 0,
        ema_momentum=recipe.ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer


class BestModel(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and a whole `.keras` file of them.

    Keras' own ModelCheckpoint writes in place, so a kill while it writes loses the
    best model; it also keeps the first of equally accurate epochs.

    Args:
        path: Where the `.keras` file goes, or `None`.
    """

    def __init__(self, path: pathlib.Path | None = None):
        super().__init__()
        self.path = path
        self.epoch = 0
        self._score = None
        self._weights = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        score = (logs["val_accuracy"], -logs["val_loss"])
        if not np.isfinite(score[1]):
            return
        if self._score is not None and not score > self._score:
            return
        self.epoch, self._score = epoch + 1, score
        self._weights = self.model.get_weights()
        if self.path:
            save_model(self.model, self.path)

    def restore(self) -> None:
        """Gives the model the best weights back."""
        self.model.set_weights(self._weights)


def _callbacks(
    recipe: TrainingRecipe, best: BestModel, folder: pathlib.Path | None
) -> list[keras.callbacks.Callback]:
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if recipe.ema_momentum:
        # Before the others, also at an epoch's end: what was validated is saved.
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        # Before the best model, which then never lacks its row.
        callbacks.append(keras.callbacks.CSVLogger(folder / "history.csv"))
    return [*callbacks, best]


def _check_classes(config: ViTConfig, data: ImageData) -> None:
    count = len(data.class_names)
    if config.num_classes != count or config.class_names not in ((), data.class_names):
        raise ValueError(
            "The model must have the classes of the data, in the same order. Received: "
            f"{config.num_classes} classes {config.class_names[:5]} and {count} "
            f"classes {data.class_names[:5]}"
        )


def _seed_everything(model: keras.Model, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    # Dropout layers drew seeds of their own when the model was built.
    states = (v for v in model.variables if v.name == "seed_generator_state")
    for index, state in enumerate(states):
        state.assign(np.array([seed, index]))


def _check_finite(history: dict[str, list[float]]) -> None:
    if not np.isfinite(history["loss"][-1]):
        raise RuntimeError(
            f"The loss became {history['loss'][-1]} in epoch {len(history['loss'])}; "
            "a lower learning rate may help."
        )


def _training_batch(recipe: TrainingRecipe, num_classes: int, seed: int) -> Callable:
    one_hot = _one_hot(num_classes)
    augment = []
    if recipe.translation:
        # Whole pixels: interpolation blurs small images, and the test's are sharp.
        augment.append(
            layers.RandomTranslation(
                recipe.translation,
                recipe.translation,
                fill_mode="constant",
                interpolation="nearest",
                seed=seed,
            )
        )
    if recipe.flip:
        augment.append(layers.RandomFlip("horizontal", seed=seed + 1))

    def prepare(images, labels):
        images, labels = one_hot(images, labels)
        for layer in augment:
            images = layer(images, training=True)
        return images, labels

    return prepare


def _one_hot(num_classes: int) -> Callable:
    # Label smoothing and mixed images need targets that are spread over classes.
    return lambda images, labels: (
        tf.cast(images, tf.float32),
        tf.one_hot(labels, num_classes),
    )
