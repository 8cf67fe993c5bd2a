"""Files of a model before they are measured: ranges or rounding, and scales, are chosen.

Each choice is made by the SNR of the logits on images that no figure is reported of.
"""

import dataclasses
from typing import Any

from keras_vit_device.tflite.operations import read_operations
from tqdm import tqdm

from keras_vit_export.float_models import FloatModels
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.forward import NORMED
from keras_vit_export.graph.inference import Graph
from keras_vit_export.graph.rotation import NONE, Rotation, why_not_rotated
from keras_vit_export.quantization import calibration, sensitivity
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QuantizationRecipe
from keras_vit_export.quantization.smoothing import LEAST_GAIN_DB, smooth
from keras_vit_export.splits import Splits

# Seeds of the rotations of the stream that are tried, and what one has to gain: it
# costs nothing while running, but a difference as small is chance.
SEEDS = (0, 1)
LEAST_TURN_DB = 0.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file that is not measured yet, and how it came about.

    Attributes:
        content: The flatbuffer, without metadata.
        recipe: With its protected layers.
        float_model: What was quantized.
        method: How ranges were chosen, or weights of less than 8 bits rounded; or empty.
        smoothed: Branches whose norm shares a scale with its readers.
        rotation: Of the graph.
        not_rotated: Why the stream could not be; empty if it could, or need not.
        protected: Scopes of layers kept in higher precision.
        snr_db: Of its logits on the images to compare on; `None` if nothing was chosen.
        chosen_on: Number of images that something was chosen on.
    """

    content: bytes
    recipe: QuantizationRecipe
    float_model: bytes
    method: str = ""
    smoothed: tuple[str, ...] = ()
    rotation: Rotation = NONE
    not_rotated: str = ""
    protected: tuple[str, ...] = ()
    snr_db: float | None = None
    chosen_on: int = 0


class Candidates:
    """Makes files of one model by recipe.

    Args:
        floats: What is quantized.
        splits: Images to calibrate and to compare on.
    """

    def __init__(self, floats: FloatModels, splits: Splits):
        self._floats, self._splits = floats, splits

    def make(self, recipe: QuantizationRecipe) -> Candidate:
        """The file of a recipe.

        Raises:
            ValueError: If it needs images and has none or too few.
            RuntimeError: If it could not be applied to all of the model.
        """
        plain = self._floats.file(recipe.without)
        if recipe.images_for and self._splits.calibration is None:
            raise ValueError(
                f"Recipe {recipe.name!r} needs images {recipe.images_for}."
            )
        made = self._by_best_method(Candidate(b"", recipe, plain))
        made = self._rotated_if_better(made)
        return self._smoothed_if_better(made) if recipe.images_for else made

    def quantize(
        self, float_model: bytes, recipe: QuantizationRecipe, method: str
    ) -> bytes:
        """A float file by a recipe and one method."""
        return quantize(float_model, *self._inputs(float_model, recipe, method))

    def with_recipe(
        self, candidate: Candidate, recipe: QuantizationRecipe
    ) -> Candidate:
        """The same file by another recipe, and all else as it was chosen."""
        return self._requantize(candidate, recipe=recipe)

    def _requantize(self, candidate: Candidate, **changes: Any) -> Candidate:
        """The candidate with these changes, quantized anew and without a score."""
        changed = dataclasses.replace(candidate, **changes, snr_db=None)
        content = self.quantize(changed.float_model, changed.recipe, changed.method)
        return dataclasses.replace(changed, content=content)

    def damage(self, candidate: Candidate) -> sensitivity.Damage:
        """The layers of a file, by the damage that each does alone."""
        float_model = candidate.float_model
        recipe, ranges, examples = self._inputs(
            float_model, candidate.recipe, candidate.method
        )
        images = self._splits.compared
        return sensitivity.Damage(float_model, recipe, ranges, images, examples)

    def _by_best_method(self, candidate: Candidate) -> Candidate:
        """Its float model by the best of several ways to round or to choose ranges."""
        recipe = candidate.recipe
        methods = recipe.roundings or ["min_max" if recipe.images_for else ""]
        if recipe.has_ranges:
            methods = calibration.METHODS
        bar = tqdm(methods, desc="Choosing", leave=False, delay=2, disable=None)
        tried = [self._requantize(candidate, method=method) for method in bar]
        if len(tried) == 1:
            return tried[0]
        return max(map(self._scored, tried), key=lambda it: it.snr_db)

    def _scored(self, candidate: Candidate) -> Candidate:
        """The same with its SNR, against what all float models of it give."""
        if candidate.snr_db is not None:
            return candidate
        plain = self._floats.file(candidate.recipe.without)
        snr_db = self._floats.snr(plain, candidate.content)
        count = len(self._splits.compared)
        return dataclasses.replace(candidate, snr_db=snr_db, chosen_on=count)

    def _rotated_if_better(self, candidate: Candidate) -> Candidate:
        """The file of a rotated graph, if it keeps more of the logits."""
        recipe = candidate.recipe
        if not recipe.gains_from_rotation or not self._floats.graph(recipe.without):
            return candidate
        if why := self._why_not_rotated(recipe):
            return dataclasses.replace(candidate, not_rotated=why)
        plain = best = self._scored(candidate)
        for seed in SEEDS:
            best = self._better(best, Rotation(seed))
        best = self._better(best, best.rotation._replace(heads=0))
        if best.snr_db <= plain.snr_db + LEAST_TURN_DB:
            return plain
        # The ranges that were best for outliers need not be so for the others.
        return self._by_best_method(best) if recipe.has_ranges else best

    def _why_not_rotated(self, recipe: QuantizationRecipe) -> str:
        images = self._splits.compared
        if images is None or len(images) < calibration.LEAST_IMAGES:
            count = 0 if images is None else len(images)
            return f"to choose on, there are {count} images"
        return why_not_rotated(self._floats.graph(recipe.without))

    def _better(self, best: Candidate, rotation: Rotation) -> Candidate:
        """The best so far, or its recipe and method with this rotation."""
        float_model = self._floats.file(best.recipe.without, rotation)
        rotated = self._requantize(best, float_model=float_model, rotation=rotation)
        return max(best, self._scored(rotated), key=lambda it: it.snr_db)

    def _smoothed_if_better(self, candidate: Candidate) -> Candidate:
        """The file with scales between norms and dense layers, if they pay."""
        graph = self._floats.graph(candidate.recipe.without, candidate.rotation)
        smoother = graph and self._smooth(graph, candidate)
        if smoother is graph:
            return candidate
        pairs = zip(graph.branches, smoother.branches, strict=True)
        names = tuple(new.name for old, new in pairs if new is not old)
        smoothed = self._requantize(
            candidate, float_model=convert_graph(smoother), smoothed=names
        )
        candidate, smoothed = map(self._scored, (candidate, smoothed))
        paid = smoothed.snr_db > candidate.snr_db + LEAST_GAIN_DB
        return smoothed if paid else candidate

    def _smooth(self, graph: Graph, candidate: Candidate) -> Graph:
        """The graph with such scales; itself where the recipe can't use them."""
        statistics = self._floats.statistics(candidate.float_model)
        rows = {}
        for branch in graph.branches:
            name = f"{branch.name}_norm/{NORMED}"
            if name in statistics:
                rows[branch.name] = statistics[name].rows
        dense = candidate.recipe.dense
        if len(rows) < len(graph.branches) or dense.activations == 16:
            return graph
        return smooth(
            graph,
            rows,
            per_token=not dense.activations,
            weight_bits=dense.weights,
        )

    def _inputs(
        self, float_model: bytes, recipe: QuantizationRecipe, method: str
    ) -> tuple[QuantizationRecipe, dict, Any]:
        """The recipe by a method, with the ranges or the images that it then needs."""
        if recipe.roundings:
            return recipe.with_rounding(method), {}, self._splits.calibration
        if not recipe.images_for:
            return recipe, {}, None
        statistics = self._floats.statistics(float_model)
        operations = read_operations(float_model)
        return recipe, calibration.ranges(statistics, operations, recipe, method), None
