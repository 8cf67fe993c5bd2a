"""Training around `model.compile` and `model.fit`: recipe in, best model out."""

import dataclasses
import pathlib
import time
import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from keras_vit.chance import warnings_of
from keras_vit.config import ViTConfig
from keras_vit.data.batches import PARALLEL, made_ahead
from keras_vit.data.pipeline import ImageData
from keras_vit.data.trained_on import make_record, read_records, write_records
from keras_vit.evaluation import Evaluation, are_probabilities
from keras_vit.files import load_model
from keras_vit.reuse import config_of, with_head
from keras_vit.training.augmentation.random_changes import Augmentation
from keras_vit.training.callbacks import (
    AveragedWeights,
    BestModel,
    Checkpoints,
    History,
    Pace,
    Progress,
    RestOfEpoch,
)
from keras_vit.training.compiling import (
    compile_model,
    first_tokens_alone,
    fits_in_memory,
    others_frozen,
)
from keras_vit.training.distillation import check_teacher, fingerprint
from keras_vit.training.hosts import distribution
from keras_vit.training.logs import TensorBoardLogs, draw_training_page
from keras_vit.training.recipes import TrainingRecipe
from keras_vit.training.runs.run import TRAINING_PAGE, Run


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What `train` gives back; the model itself holds the best weights.

    Attributes:
        history: Loss and accuracy of each epoch, by column.
        best_epoch: Number of the epoch whose weights were kept, from 1.
        evaluation: Predictions of the test images by those weights.
        pace: `"images_per_second"`, `"waiting"` (the part of the time that steps waited
            for images) and `"peak_memory_bytes"` of this process, and `"seconds"` in
            `model.fit`.
        warnings: Sentences that say where it is no better than chance, and what to try.
    """

    history: dict[str, list[float]]
    best_epoch: int
    evaluation: Evaluation
    pace: dict[str, float]
    warnings: tuple[str, ...] = ()


def train(
    model: keras.Model,
    data: ImageData,
    recipe: TrainingRecipe | None = None,
    *,
    output: str | pathlib.Path | None = None,
    seed: int = 0,
    teacher: keras.Model | str | pathlib.Path | None = None,
    origin: str | None = None,
    resume: bool = False,
    checkpoint_steps: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> TrainingRun:
    """Trains a model that `build_vit` made and keeps its best weights.

    Best means the highest accuracy on the validation images and, among equals, the
    lowest loss; or the last, if the recipe says so.

    Args:
        model: Built by `build_vit` for the images of `data`.
        data: Images of the model's size.
        recipe: How to train; the default recipe if `None`.
        output: New folder for `model.keras`, `history.csv`, `logs` for TensorBoard,
            `training_images.png`, `curves.png`, `predictions.png`, `confusion.png` and
            `run.json`. The first three are up to date after every epoch, so an
            interrupted run leaves what it finished.
        seed: Seed of augmentation, dropout and drop path; the model has its first
            weights already.
        teacher: Any functional or sequential model, or its file, that the distillation
            token, or else the head, learns from as the recipe says; it takes the same
            images and knows the same classes.
        origin: Where the model's first weights come from, for `run.json`.
        resume: Whether to go on from the newest checkpoint in `output`. On one CPU the
            end is that of a run which was never interrupted, to the last bit. A run
            that is finished goes on to a recipe of more epochs, from its best model
            with a new optimizer and a new course of the learning rate; one whose loss
            was no number, with another learning rate from its newest whole checkpoint.
        checkpoint_steps: Steps between checkpoints within an epoch; each epoch begins
            with one anyway.
        callbacks: More of them for `model.fit`, behind those of the run. What one
            remembers is not in checkpoints. The learning rate has its course, so none
            may set it.
        verbose: Of `model.fit`.

    Raises:
        ValueError: If the folder already holds something, or nothing to resume, or
            another process is writing it; if it was made with other settings; if a
            callback sets the learning rate; if model, data and teacher differ in their
            classes, or model and data in the shape of their images; if no layer would
            be trained; or if a batch is no multiple of the devices.
        MemoryError: If a batch is larger than the memory of the device.
        NoNumberError: A RuntimeError, if the loss became infinite or no number.
    """
    recipe = recipe or TrainingRecipe()
    data, strategy = data.with_passes(recipe.passes), model.distribute_strategy
    _check_classes(config_of(model), data)
    _check_images(model, data)
    _check_replicas(recipe, data, strategy)
    _check_callbacks(callbacks)
    teacher, taught = _load_teacher(teacher)
    if teacher is not None and not resume:  # that of a run that was begun is the same
        check_teacher(model, teacher)
    _seed_everything(model, seed)
    given = {"seed": seed, "origin": origin, "checkpoint_steps": checkpoint_steps}
    settings = _settings(model, data, recipe) | given | taught
    chief = distribution.is_chief(strategy)
    with Run.open(output, settings, resume, chief) as run:
        notes = run.start(data.training_images.steps_per_epoch)
        if "restarts" in notes:
            model.set_weights(load_model(run.folder / "model.keras").get_weights())
        distribution.check_same_everywhere(strategy, notes["step"])
        ours = _Callbacks.of(
            model, data, recipe, run, notes, checkpoint_steps, callbacks
        )
        start = time.monotonic()
        with distribution.end_together(strategy):
            with run.kept_whole(ours.progress):
                if page := run.path(TRAINING_PAGE):
                    draw_training_page(data, recipe, seed, page)
                batches = training_batches(
                    model, recipe, data, seed, ours.progress, ours.pace
                )
                restarted = run.restarted_after
                _fit(model, recipe, data, batches, teacher, ours, verbose, restarted)
                ours.best.restore()
            seconds = round(time.monotonic() - start, 1)
            return _finish(model, data, run, ours, seconds, origin)


def _finish(
    model,
    data: ImageData,
    run: Run,
    callbacks: "_Callbacks",
    seconds: float,
    origin,
) -> TrainingRun:
    """Measures the best weights, and writes what a finished run has."""
    figures = {**callbacks.pace.figures, "seconds": seconds}
    evaluation = evaluate(_on_one_device(model), data.test, data.class_names)
    history, best = callbacks.history.columns, callbacks.best.epoch
    validated = history["val_accuracy"], best, _labels_of(data.validation)
    said = warnings_of(*validated, evaluation)
    run.finish(data, history, evaluation, best, {**figures, "warnings": said})
    if file := run.path("model.keras"):
        # What was trained on before counts too.
        earlier = read_records(origin) if origin else []
        write_records(file, [*earlier, make_record(data.source)])
    return TrainingRun(history, best, evaluation, figures, said)


def _load_teacher(teacher) -> tuple[keras.Model | None, dict[str, Any]]:
    """A teacher or its file as a model, and what of it a resumed run must share."""
    path = None
    if isinstance(teacher, (str, pathlib.Path)):
        path, teacher = str(teacher), load_model(teacher)
    weights = None if teacher is None else fingerprint(teacher)
    return teacher, {"teacher": path, "teacher_weights": weights}


@dataclasses.dataclass(frozen=True)
class _Callbacks:
    """The callbacks of a run.

    Attributes:
        progress: Counts the steps.
        pace: Measures their speed.
        history: Keeps a row for each epoch.
        best: Keeps the best weights.
        all: These and the others, in the order in which `fit` calls them.
    """

    progress: Progress
    pace: Pace
    history: History
    best: BestModel
    all: tuple[keras.callbacks.Callback, ...]

    @classmethod
    def of(
        cls, model, data, recipe, run: Run, notes, checkpoint_steps: int, more
    ) -> Self:
        """For a new run, or as the notes of a checkpoint left it; `more` come last."""
        progress, pace = Progress(notes["step"]), Pace(data.training_images.batch_size)
        history = History(run.path("history.csv"), notes["history"])
        best = BestModel(
            model,
            run.folder and run.folder / "model.keras",
            **notes.get("best", {}),
            patience=recipe.patience,
            keep=recipe.keep,
            write=run.writes,
        )
        ordered = [progress]
        if recipe.ema_momentum:
            # Before the others: what was validated is saved.
            ordered.append(AveragedWeights())
        if run.folder:
            steps = data.training_images.steps_per_epoch, checkpoint_steps
            watched = progress, history, best
            begun = notes["step"] > 0 and "restarts" not in notes
            ordered.append(
                Checkpoints(
                    run.folder, *steps, *watched, write=run.writes, restore=begun
                )
            )
        ordered += [pace, history, best]
        if logs := run.path("logs"):
            page = run.path(TRAINING_PAGE)
            ordered.append(TensorBoardLogs(logs, pace, page))
        return cls(progress, pace, history, best, (*ordered, *more))


def _settings(model, data: ImageData, recipe: TrainingRecipe) -> dict[str, Any]:
    """What a run that is resumed must have in common with the one begun."""
    return {
        "dataset": data.name,
        "counts": data.counts,
        "config": dataclasses.asdict(config_of(model)),
        "recipe": dataclasses.asdict(recipe),
        "batch_size": data.training_images.batch_size,
        "precision": model.get_layer("patches").dtype_policy.name,
    }


def _fit(
    model,
    recipe,
    data: ImageData,
    batches,
    teacher,
    callbacks: _Callbacks,
    verbose,
    restarted,
) -> None:
    """Compiles and fits, on whatever devices the model was built for."""
    config, strategy = config_of(model), model.distribute_strategy
    validation = data.validation.map(_one_hot(config.num_classes))
    if strategy.num_replicas_in_sync > 1:
        steps = int(data.validation.cardinality())
        validation = distribution.own_part(strategy, validation)
        validation = distribution.distribute(strategy, validation, steps)
    ordered = [*callbacks.all]
    epoch, begun = divmod(callbacks.progress.done, data.training_images.steps_per_epoch)
    if begun:
        ordered.append(RestOfEpoch(data.training_images.steps_per_epoch - begun))
    with (
        others_frozen(model, recipe),
        first_tokens_alone(model),
        fits_in_memory(data.training_images.batch_size),
        warnings.catch_warnings(),
    ):
        # What is left of an epoch is shorter than Keras expects.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        trained = compile_model(model, config, recipe, data, teacher, restarted)
        with distribution.on_replicas(trained):
            trained.fit(
                batches,
                validation_data=validation,
                initial_epoch=epoch,
                epochs=recipe.epochs,
                callbacks=ordered,
                shuffle=False,  # the data set shuffles itself
                verbose=verbose if distribution.is_chief(strategy) else 0,
            )


def _on_one_device(model: keras.Model) -> keras.Model:
    """The model itself, or a copy for this process alone if it is on several."""
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return model
    config = config_of(model)
    return with_head(model, config.num_classes, config.class_names)


def training_batches(model, recipe, data: ImageData, seed, progress, pace):
    """Augmented batches of what is left of an epoch, at each pass."""
    strategy = model.distribute_strategy
    worker = distribution.worker_of(strategy)
    augment = Augmentation(recipe, config_of(model).num_classes, seed, worker[0])
    batches = data.training_images.epochs(
        lambda: progress.done, repeats=recipe.repeats, worker=worker
    )
    batches = batches.map(augment, PARALLEL, deterministic=True)
    batches = made_ahead(pace.stamp(batches))
    steps = data.training_images.steps_per_epoch
    if strategy.num_replicas_in_sync > 1:
        return distribution.distribute(strategy, batches, steps)
    # Else Keras takes the rest of a broken-off epoch for the length of all epochs;
    # `assert_cardinality` would not let that rest end.
    batches.cardinality = lambda: tf.constant(steps, tf.int64)
    return batches


def evaluate(
    model: keras.Model, batches: tf.data.Dataset, class_names: tuple[str, ...]
) -> Evaluation:
    """Predicts every image of a data set of (images, labels) batches."""
    labels = _labels_of(batches)
    output = model.predict(batches.map(lambda images, _: images), verbose=0)
    if not are_probabilities(output):
        output = np.asarray(keras.ops.softmax(output))
    return Evaluation(labels, output, tuple(class_names))


def _labels_of(batches: tf.data.Dataset) -> np.ndarray:
    """The labels of (images, labels) batches, in order: integers `(count,)`."""
    return np.concatenate([labels for _, labels in batches.as_numpy_iterator()])


def _check_replicas(recipe: TrainingRecipe, data: ImageData, strategy) -> None:
    count = strategy.num_replicas_in_sync
    batch_size = data.training_images.batch_size
    if batch_size % count:
        # The gradient is the mean of theirs, each of as many images.
        raise ValueError(
            f"The batch size must be a multiple of the {count} devices. Received: "
            f"{batch_size}"
        )
    if recipe.accumulation > 1 and count > 1:
        raise ValueError(
            "Keras accumulates gradients on one device only. Received: accumulation="
            f"{recipe.accumulation} on {count} devices"
        )


def _check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    setters = keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau
    if found := [type(it).__name__ for it in callbacks if isinstance(it, setters)]:
        raise ValueError(
            f"The recipe sets the learning rate, so no callback can. Received: {found}"
        )


def _check_classes(config: ViTConfig, data: ImageData) -> None:
    count = len(data.class_names)
    if config.num_classes != count or config.class_names not in ((), data.class_names):
        raise ValueError(
            "The model must have the classes of the data, in the same order. Received: "
            f"{config.num_classes} classes {config.class_names[:5]} and {count} "
            f"classes {data.class_names[:5]}"
        )


def _check_images(model: keras.Model, data: ImageData) -> None:
    taken, given = model.input_shape[1:], data.validation.element_spec[0].shape[1:]
    if tuple(given) != tuple(taken):
        raise ValueError(
            "The images of the data must have the model's (height, width, channels); "
            "load_data(name, config) fits them. Received: a model of "
            f"{tuple(taken)} and images of {tuple(given)}"
        )


def _seed_everything(model: keras.Model, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    # Dropout layers drew seeds of their own when the model was built. Each draw adds 1
    # to the second number, so neighbours' are a million draws apart.
    states = (v for v in model.variables if v.name == "seed_generator_state")
    for index, state in enumerate(states):
        state.assign(np.array([seed, index << 20]))


def _one_hot(num_classes: int):
    return lambda images, labels: (
        tf.cast(images, tf.float32),
        tf.one_hot(labels, num_classes),
    )
