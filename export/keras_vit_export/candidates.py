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
from keras_vit_export.quantization import calibration, sensitivity
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import QuantizationRecipe
from keras_vit_export.quantization.smoothing import LEAST_GAIN_DB, smooth
from keras_vit_export.splits import Splits


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file that is not measured yet, and how it came about.

    Attributes:
        content: The flatbuffer, without metadata.
        recipe: With its protected layers.
        float_model: What was quantized.
        method: How ranges were chosen, or weights of less than 8 bits rounded; or empty.
        smoothed: Branches whose norm shares a scale with its readers.
        protected: Scopes of layers kept in higher precision.
        chosen_on: Number of images that something was chosen on.
    """

    content: bytes
    recipe: QuantizationRecipe
    float_model: bytes
    method: str = ""
    smoothed: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
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
        if not recipe.images_for:
            return Candidate(quantize(plain, recipe), recipe, plain)
        if self._splits.calibration is None:
            raise ValueError(
                f"Recipe {recipe.name!r} needs images {recipe.images_for}."
            )
        best, snr = self._best_by_method(plain, recipe)
        return self._smoothed_if_better(best, snr)

    def quantize(
        self, float_model: bytes, recipe: QuantizationRecipe, method: str
    ) -> bytes:
        """A float file by a recipe and one method."""
        return quantize(float_model, *self._inputs(float_model, recipe, method))

    def with_recipe(
        self, candidate: Candidate, recipe: QuantizationRecipe
    ) -> Candidate:
        """The same file by another recipe, and all else as it was chosen."""
        content = self.quantize(candidate.float_model, recipe, candidate.method)
        return dataclasses.replace(candidate, content=content, recipe=recipe)

    def most_damaging(self, candidate: Candidate) -> list[str]:
        """Scopes of the layers of a file, the one that does most damage alone first."""
        float_model = candidate.float_model
        recipe, ranges, examples = self._inputs(
            float_model, candidate.recipe, candidate.method
        )
        images = self._splits.compared
        return list(sensitivity.sweep(float_model, recipe, ranges, images, examples))

    def _best_by_method(
        self, float_model: bytes, recipe: QuantizationRecipe
    ) -> tuple[Candidate, float]:
        """The best of several ways to round or to choose ranges, and its SNR."""
        bits = {rule.activations for rule in recipe.rules}
        methods = recipe.roundings or (
            calibration.METHODS if 8 in bits else ["min_max"]
        )
        files = {it: self.quantize(float_model, recipe, it) for it in methods}
        bar = tqdm(files, desc="Choosing", leave=False, delay=2, disable=None)
        scores = {
            method: self._floats.snr(float_model, files[method]) for method in bar
        }
        best = max(files, key=scores.get)
        count = len(self._splits.compared) if len(files) > 1 else 0
        candidate = Candidate(files[best], recipe, float_model, best, chosen_on=count)
        return candidate, scores[best]

    def _smoothed_if_better(self, candidate: Candidate, snr: float) -> Candidate:
        """The file with scales between norms and dense layers, if they pay."""
        graph = self._floats.graph(candidate.recipe.without)
        smoother = graph and self._smooth(graph, candidate)
        if smoother is graph:
            return candidate
        float_model = convert_graph(smoother)
        content = self.quantize(float_model, candidate.recipe, candidate.method)
        if self._floats.snr(float_model, content) <= snr + LEAST_GAIN_DB:
            return candidate
        pairs = zip(graph.branches, smoother.branches, strict=True)
        names = tuple(new.name for old, new in pairs if new is not old)
        return dataclasses.replace(
            candidate, content=content, float_model=float_model, smoothed=names
        )

    def _smooth(self, graph: Graph, candidate: Candidate) -> Graph:
        """The graph with such scales; itself where the recipe can't use them."""
        statistics = self._floats.statistics(candidate.float_model)
        rows = {}
        for branch in graph.branches:
            name = f"{branch.name}_norm/{NORMED}"
            if name in statistics:
                rows[branch.name] = statistics[name].rows
        dense = candidate.recipe.rule_for("FULLY_CONNECTED", "block_00_mlp_hidden;")
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
