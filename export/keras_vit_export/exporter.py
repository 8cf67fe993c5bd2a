"""A Keras model and a recipe -> a `.tflite` and its report.

Rewriting, calibrating, choosing and measuring in their order: ranges are calibrated on
training images, choices made on validation images, figures reported on test images.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras_vit_device.classifier import Classifier
from keras_vit_device.self_test import KEY as SELF_TEST
from keras_vit_device.self_test import SelfTest, make_self_test
from keras_vit_device.terminal import one_line
from keras_vit_device.tflite import metadata
from tqdm import tqdm

from keras_vit.config import check_choice
from keras_vit.data import ImageData
from keras_vit_export.candidates import Candidate, Candidates
from keras_vit_export.description import describe
from keras_vit_export.doubts import match_classes, settle
from keras_vit_export.float_models import FloatModels
from keras_vit_export.gpu.half import short_probabilities
from keras_vit_export.gpu.pitfalls import pitfalls
from keras_vit_export.gpu.reach import Reach, reach
from keras_vit_export.graph.convert import Origin, read_origin
from keras_vit_export.graph.headroom import shrunk_norms
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.quantization.quantize import count_skipped, protect
from keras_vit_export.quantization.recipes import (
    DEFAULT_RECIPE,
    OLD_RUNTIME,
    QUANTIZATION_RECIPES,
    QuantizationRecipe,
    for_old_runtime,
)
from keras_vit_export.quantization.sensitivity import Damage
from keras_vit_export.report.measure import Report, measure
from keras_vit_export.splits import Images, find_splits, image_shape


def export(
    model: keras.Model,
    recipe: str = DEFAULT_RECIPE,
    images: Images = None,
    *,
    rewrites: str = "auto",
    input_scale: str = "",
    logits: bool = False,
) -> tuple[bytes, Report]:
    """Converts a model and measures what came out against what went in.

    Args:
        model: From images `(b, height, width, c)` in 0..255 to logits or
            probabilities `(b, num_classes)`.
        recipe: Name of a recipe.
        images: An `ImageData`, whose training images calibrate, whose validation images
            decide and whose test images are reported on; or batches of images and
            labels, which serve for all three; or an array of images, to calibrate
            without measuring top-1. Without images only the difference on random
            pixels is measured, and the report says so.
        rewrites: `"auto"`, or `"required"` to refuse a model that `build_vit` did not
            make instead of converting it as it is.
        input_scale: What the model takes in place of pixels in 0..255: `"0..1"`,
            `"-1..1"`, `"imagenet"`, `"caffe"` or `"MEAN,STD"` in pixels. If empty, it is
            looked for in the model; where nothing there tells, labelled images decide
            whether 0..255 is right.
        logits: Whether the model gives logits where neither it nor its loss says so.

    Returns:
        The `.tflite` file's content and its report.

    Raises:
        ValueError: If the recipe is unknown, the model is no image classifier of a
            fixed size or has weights that are no numbers, or images do not fit it, are
            too few or are missing where the recipe needs them.
        RuntimeError: If TFLite's builtin operations can't express the model, or the
            recipe could not be applied to all of it.
    """
    content, reports = export_all(
        model,
        [recipe],
        images,
        rewrites=rewrites,
        input_scale=input_scale,
        logits=logits,
    )
    return content[recipe], reports[recipe]


def export_all(
    model: keras.Model,
    recipes: Sequence[str],
    images: Images = None,
    *,
    rewrites: str = "auto",
    input_scale: str = "",
    logits: bool = False,
) -> tuple[dict[str, bytes], dict[str, Report]]:
    """`export` for several recipes, measured side by side.

    Returns:
        The files by recipe, and the reports by recipe with one more, `"keras"`, of
        the model itself.
    """
    classifier = KerasClassifier(model, input_scale, logits=logits)
    exporter = Exporter(classifier, images, rewrites=rewrites)
    return exporter.check({name: exporter.convert(name) for name in recipes})


class Exporter:
    """One model on its way to files; what several recipes need is made once.

    Args:
        model: The Keras model, or a classifier made of it.
        images: As in `export`.
        rewrites: As in `export`.
        compat: `"2.14"` for files that TFLite 2.14 computes rightly too, or `None`.

    Raises:
        ValueError: If the model or the images are not what `export` takes.
    """

    def __init__(
        self,
        model: keras.Model | KerasClassifier,
        images: Images = None,
        rewrites: str = "auto",
        compat: str | None = None,
    ):
        if compat is not None:
            check_choice("compat", compat, [OLD_RUNTIME])
        self._compat = compat
        self.origin: Origin = read_origin(model, rewrites)
        self.splits = find_splits(images)
        self._check_images()
        self.taken_for_granted = settle(self.origin.classifier, self.splits.choice)
        if isinstance(images, ImageData):
            match_classes(self.origin.classifier, images.class_names)
        self.floats = FloatModels(self.origin, self.splits)
        self._candidates = Candidates(self.floats, self.splits)

    def _check_images(self) -> None:
        shape = self.origin.classifier.model.input_shape[1:]
        for images in (self.splits.calibration, self.splits.report):
            given = None if images is None else image_shape(images)
            if given not in (None, shape):
                raise ValueError(
                    f"Images must have the model's shape {shape}. Received: {given}"
                )

    def convert(self, name: str) -> Candidate:
        """Makes the file of a recipe.

        Raises:
            ValueError: If the recipe is unknown, or needs images and has none or too
                few.
            RuntimeError: As `export`.
        """
        check_choice("recipe", name, QUANTIZATION_RECIPES)
        return self._candidates.make(self._recipe(name))

    def make_plain(self, name: str) -> Candidate:
        """`convert` without rotation, scales and rounding, to compare with."""
        return self._candidates.make_plain(self._recipe(name))

    def _recipe(self, name: str) -> QuantizationRecipe:
        recipe = QUANTIZATION_RECIPES[name]
        return for_old_runtime(recipe) if self._compat else recipe

    def convert_all(
        self, plain: bool = False
    ) -> tuple[dict[str, Candidate], dict[str, str]]:
        """Files of all recipes, and why others can't be had, both by recipe.

        Args:
            plain: Whether by `make_plain`.

        Raises:
            RuntimeError: If none can be had.
        """
        made, refused = {}, {}
        for name in tqdm(
            QUANTIZATION_RECIPES, desc="Recipes", leave=False, delay=2, disable=None
        ):
            try:
                made[name] = self.make_plain(name) if plain else self.convert(name)
            except RuntimeError as error:
                refused[name] = one_line(error)
        if not made:
            raise RuntimeError(next(iter(refused.values())))
        return made, refused

    def damage(self, candidate: Candidate) -> Damage:
        """The layers of a file, by the damage that each does alone."""
        return self._candidates.damage(candidate)

    def protect(self, candidate: Candidate, scopes: Sequence[str]) -> Candidate:
        """The file with these layers in higher precision, and no others."""
        recipe = protect(self._recipe(candidate.recipe.name), scopes)
        changed = self._candidates.with_recipe(candidate, recipe)
        return dataclasses.replace(changed, protected=tuple(scopes))

    def check(
        self,
        exports: Mapping[str, Candidate],
        accelerators: Sequence[str] = ("cpu", "gpu"),
    ) -> tuple[dict[str, bytes], dict[str, Report]]:
        """Measures files and puts the figures into them, as `export_all` returns it.

        Args:
            exports: By recipe.
            accelerators: Where to try them; a GPU that is not there is said.

        Raises:
            RuntimeError: If LiteRT refuses a file, or the GPU alone is asked for and
                there is none.
        """
        reference = self.origin.classifier
        contents = {name: describe(it.content) for name, it in exports.items()}
        candidates = {name: _load(name, it) for name, it in contents.items()}
        reports = measure(reference, candidates, self.splits.report)
        files = {}
        for name, made in exports.items():
            test = self._self_test(candidates[name], made)
            files[name] = self._write(contents[name], reports[name], test)
            reports[name] = dataclasses.replace(
                reports[name],
                size_bytes=len(files[name]),
                weak_self_test=test.weak,
                accelerators=self._reach(Classifier(files[name]), accelerators),
                **self._history(made),
            )
        return files, reports

    def _self_test(self, candidate: Classifier, made: Candidate) -> SelfTest:
        exact = Classifier.of_flatbuffer(made.float_model)
        return make_self_test(
            lambda image: candidate.probabilities([image])[0],
            lambda image: exact.probabilities([image])[0],
            lambda image: short_probabilities(made.float_model, image),
            self.origin.classifier.model.input_shape[1:],
            made.recipe.tolerance,
            metadata.digest(candidate.content),
        )

    def _write(self, content: bytes, report: Report, test: SelfTest) -> bytes:
        """The file of a flatbuffer, with all that travels in it."""
        # Latency and size are the machine's and the file's own to tell.
        names = ("recipe", "top1", "agreement", "images")
        figures = {name: getattr(report, name) for name in names}
        reference = self.origin.classifier
        contract = {"preprocessing": reference.preprocessing, **figures}
        if reference.trained_on:
            contract["trained_on"] = reference.trained_on
        contract[SELF_TEST] = test.as_dict()
        return metadata.attach(content, reference.class_names, contract)

    def check_accelerators(self, names: Sequence[str]) -> None:
        """Before long work, with a small part of it.

        Raises:
            RuntimeError: If the GPU alone is asked for and there is none.
        """
        if tuple(names) == ("gpu",):
            smallest = Classifier.of_flatbuffer(self.convert("float32").content)
            reach(smallest, self.floats.few_images()[:1], names)

    def _reach(self, classifier: Classifier, names: Sequence[str]) -> dict[str, Reach]:
        images = self.splits.compared
        return reach(
            classifier, self.floats.few_images() if images is None else images, names
        )

    def _history(self, made: Candidate) -> dict:
        """What the report says of how a file was made."""
        graph = self.floats.graph(made.recipe.without, lifted=made.lifted)
        used = dict(self.splits.counts)
        if not made.recipe.images_for:
            used.pop("calibration", None)
        if "choice" in used:
            used["choice"] = used["choice"] | {"images": made.chosen_on}
        return {
            "splits": {purpose: it for purpose, it in used.items() if it["images"]},
            "skipped": count_skipped(made.float_model, made.content, made.recipe),
            "layer_snr_db": self.floats.layer_snr_db(made.float_model, made.content),
            "rewrites": graph.rewrites if graph else (),
            "not_rewritten": self.origin.reason,
            "pixels": self.origin.classifier.scale_source,
            "output": str(self.origin.classifier.meaning),
            "taken_for_granted": self.taken_for_granted,
            "chosen": made.methods,
            "smoothed": made.smoothed,
            "rotated": str(made.rotation),
            "not_rotated": made.not_rotated,
            "protected": made.protected,
            "undecided": self.floats.undecided,
            "pitfalls": pitfalls(made.content),
            "half": self.floats.half(made.float_model).as_dict(),
            "shrunk": shrunk_norms(graph) if graph else {},
        }


def _load(name: str, content: bytes) -> Classifier:
    try:
        return Classifier.of_flatbuffer(content)
    except ValueError as error:  # weights of all zeros, for one
        raise RuntimeError(f"LiteRT refuses the {name} file. {error}") from error
