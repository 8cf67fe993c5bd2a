"""The search: variants are made, exported, measured, and trained where that may help.

Every decision is made on validation images. What is reported of the file that is taken
is measured on the test images, which nothing was chosen on.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras_vit_device.classifier import Classifier

from keras_vit.data import ImageData, ImageSource
from keras_vit.files import load_model
from keras_vit.reuse import config_of
from keras_vit.training.distillation import fingerprint
from keras_vit.training.loop import train
from keras_vit.training.plan import TrainingPlan, plan_training
from keras_vit.training.recipes import FEWER_TOKENS, TRAINING_RECIPES
from keras_vit.training.runs.settings import is_finished
from keras_vit_export.budget import fastest
from keras_vit_export.candidates import Candidate
from keras_vit_export.exporter import Exporter
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.report.measure import median_latency_ms, points_lost, predict
from keras_vit_export.speedup.trials import Store, Trial
from keras_vit_export.speedup.variants import Variant, find_variants

# Hears of each trial as it ends.
Listener = Callable[[Trial], None]


class Search:
    """Looks for the fastest file of a model that keeps to a budget.

    Args:
        classifier: The model as it came, built by `build_vit`.
        source: Images with the model's classes.
        folder: Where trials are kept, so that a search may go on.
        origin: The model's file, which says what it was trained on.
        max_drop: Points of top-1 that may be lost, on validation images.
        seed: Of training.
        epochs: Of training a variant; the recipe's if `None`.
        listener: Called with each trial as it ends.

    Attributes:
        trials: What was found; empty before `run`.

    Raises:
        ValueError: If `build_vit` did not make the model, or the folder holds the search
            of another model or of other images.
    """

    def __init__(
        self,
        classifier: KerasClassifier,
        source: ImageSource,
        folder: pathlib.Path,
        *,
        origin: str | None = None,
        max_drop: float,
        seed: int = 0,
        epochs: int | None = None,
        listener: Listener = lambda trial: None,
    ):
        self._config = config_of(classifier.model)
        self._classifier, self._source, self._origin = classifier, source, origin
        self._max_drop, self._seed, self._listener = max_drop, seed, listener
        self.plan = self._plan(epochs)
        counts = {name: it.count for name, it in source.splits.items()}
        settings = {
            "model": fingerprint(classifier.model),
            "dataset": source.name,
            "images": counts,
            "seed": seed,
        }
        self._store = Store(folder, settings)
        self.trials: list[Trial] = []

    def run(self, trains: bool) -> None:
        """Tries what there is.

        Args:
            trains: Whether variants that don't hold are trained.
        """
        self.trials = [self._try_first()]
        for variant in find_variants(self._config):
            if trial := self._try(variant):
                self.trials.append(trial)
        self._time()
        if trains:
            for variant in self._worth_training():
                self.trials.append(self._try(variant, self.plan.recipe.epochs))
                self._time()
        self._try_together(trains)

    def choose(self, reaches: Callable[[Trial], bool] | None = None) -> Trial | None:
        """The fastest trial that holds; of those that reach a target the most accurate.

        Of equally accurate ones it is the fastest.

        Args:
            reaches: Whether a trial reaches the target, or `None` if there is none.
        """
        if reaches is None:
            return min(self._holding, key=lambda it: it.latency_ms, default=None)
        reaching = filter(reaches, self._holding)
        return min(reaching, key=lambda it: (it.drop, it.latency_ms), default=None)

    @property
    def _holding(self) -> list[Trial]:
        """Trials that keep to the budget."""
        return [it for it in self.trials if it.drop <= self._max_drop]

    def missed(self) -> list[Trial]:
        """Trials that are faster than all that hold, fastest first."""
        held = min((it.latency_ms for it in self._holding), default=np.inf)
        faster = [it for it in self.trials if it.latency_ms < held]
        return sorted(faster, key=lambda it: it.latency_ms)

    def classifier_of(self, trial: Trial) -> KerasClassifier:
        """The Keras model of a trial."""
        if trial.epochs:
            path = self._store.run_folder(trial.variant) / "model.keras"
            return self._classify(load_model(path))
        return self._classify(trial.variant.apply(self._classifier.model))

    def _classify(self, model: keras.Model) -> KerasClassifier:
        found = KerasClassifier(model)
        found.trained_on = self._classifier.trained_on
        if not found.named:
            found.name_classes(self._classifier.class_names)
        return found

    def data_of(self, model: keras.Model) -> ImageData:
        """The images in a model's size."""
        return self._source.load(
            config_of(model), batch_size=self.plan.batch_size, seed=self._seed
        )

    @functools.cached_property
    def _reference(self) -> np.ndarray:
        """Whether the model as it came names each validation image rightly."""
        data = self.data_of(self._classifier.model)
        labels, rows = predict({"it": self._classifier}, data.validation)
        return rows["it"].argmax(axis=1) == labels

    def _try_first(self) -> Trial:
        """The model as it came, by the fastest recipe that holds; else in floats."""
        if found := self._store.find(Variant(), 0):
            return found
        exporter = Exporter(
            self._classifier, self.data_of(self._classifier.model), "required"
        )
        made, _ = fastest(exporter, self._max_drop)
        return self._judge(Variant(), 0, exporter, made or exporter.convert("float32"))

    def _try(self, variant: Variant, epochs: int = 0) -> Trial | None:
        """A variant's trial, of this search or of an earlier; `None` if it has no file."""
        if found := self._store.find(variant, epochs):
            return found
        model = variant.apply(self._classifier.model)
        data = self.data_of(model)
        if epochs:
            self._train(variant, model, data)
        exporter = Exporter(self._classify(model), data, "required")
        try:
            made = exporter.make_plain(self.trials[0].recipe)
        except RuntimeError:  # integers alone can't prune
            return None
        return self._judge(variant, epochs, exporter, made)

    def _judge(
        self, variant: Variant, epochs: int, exporter: Exporter, made: Candidate
    ) -> Trial:
        classifier = Classifier.of_flatbuffer(made.content)
        labels, rows = predict({"it": classifier}, exporter.splits.choice)
        right = rows["it"].argmax(axis=1) == labels
        drop, interval = points_lost(self._reference, right)
        trial = Trial(
            variant=variant,
            recipe=made.recipe.name,
            epochs=epochs,
            top1=float(right.mean()),
            drop=round(drop, 6),
            interval=interval,
        )
        self._store.add(trial, made.content)
        self._listener(trial)
        return trial

    def _train(self, variant: Variant, model: keras.Model, data: ImageData) -> None:
        """Trains a variant, or goes on where a killed search left it."""
        folder = self._store.run_folder(variant)
        if is_finished(folder):
            model.set_weights(load_model(folder / "model.keras").get_weights())
            return
        same_images = variant.image_size is None
        train(
            model,
            data,
            self.plan.recipe,
            output=folder,
            seed=self._seed,
            teacher=self._classifier.model if same_images else None,
            origin=self._origin,
            resume=(folder / "run.json").exists(),
        )

    def _plan(self, epochs: int | None) -> TrainingPlan:
        given = {} if epochs is None else {"epochs": epochs}
        return plan_training(
            self._source.splits["train"].count,
            self._source.class_names,
            self._source.image_shape or self._source.usual_shape,
            recipe=TRAINING_RECIPES[FEWER_TOKENS],
            trained=True,
            **given,
        )

    def _worth_training(self) -> Iterator[Variant]:
        """Variants that don't hold as they are, each kind from the slowest on.

        A kind ends where one does not hold even when it is trained: a faster one of the
        kind would lose more.
        """
        untrained = [it for it in self.trials[1:] if it.drop > self._max_drop]
        kinds = dict.fromkeys(it.variant.kind for it in untrained)
        for kind in kinds:
            found = [it for it in untrained if it.variant.kind == kind]
            for trial in sorted(found, key=lambda it: -it.latency_ms):
                if trial.latency_ms >= self._fastest_ms(kind):
                    continue
                yield trial.variant
                if self.trials[-1].drop > self._max_drop:
                    break

    def _fastest_ms(self, kind: str) -> float:
        times = (it.latency_ms for it in self._holding if it.variant.kind == kind)
        return min(times, default=np.inf)

    def _try_together(self, trains: bool) -> None:
        """The fastest smaller grid that holds, with the fastest reduction that does."""
        grids = [it for it in self._holding if it.variant.kind in ("size", "patch")]
        reduced = [it for it in self._holding if it.variant.kind in ("pool", "prune")]
        if not grids or not reduced:
            return
        first, second = (
            min(them, key=lambda it: it.latency_ms).variant for them in (grids, reduced)
        )
        both = first.beside(second)
        try:
            both.config(self._config)
        except ValueError:  # a grid that can't be pooled
            return
        epochs = (0, self.plan.recipe.epochs) if trains else (0,)
        for count in epochs:
            if trial := self._try(both, count):
                self.trials.append(trial)
                self._time()

    def _time(self) -> None:
        """Latencies of all trials, in turn, so that noise hits all alike."""
        runs = {}
        for trial in self.trials:  # training changes no time
            classifier = Classifier.of_flatbuffer(self._store.content(trial))
            image = classifier.test_image[None]
            run = functools.partial(classifier.probabilities, image)
            runs.setdefault(trial.variant, run)
        times = median_latency_ms(runs)
        first = times[self.trials[0].variant]
        self.trials = [
            dataclasses.replace(
                trial,
                latency_ms=times[trial.variant],
                ratio=first / times[trial.variant],
            )
            for trial in self.trials
        ]
        self._store.keep(self.trials)
