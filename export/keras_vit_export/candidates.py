"""Files of a model before they are measured: ranges, rounding and scales are chosen.

Each choice is made by the SNR of the logits on images that no figure is reported of.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras_vit_device.tflite.operations import read_operations
from tqdm import tqdm

from keras_vit_export.float_models import FloatModels
from keras_vit_export.graph.convert import convert_graph
from keras_vit_export.graph.forward import NORMED
from keras_vit_export.graph.inference import Graph
from keras_vit_export.graph.rewrites import lift_weights
from keras_vit_export.graph.rotation import NONE, Rotation, why_not_rotated
from keras_vit_export.quantization import calibration, sensitivity
from keras_vit_export.quantization.calibration import Range
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import (
    QUANTIZATION_RECIPES,
    QuantizationRecipe,
)
from keras_vit_export.quantization.rounding import Moments
from keras_vit_export.quantization.smoothing import LEAST_GAIN_DB, smooth
from keras_vit_export.splits import Splits

# Seeds of the rotations that are tried: on a pretrained ViT-S they were 2 dB apart.
SEEDS = range(4)
# What one has to gain: it costs nothing while running, but a difference as small is
# chance.
LEAST_TURN_DB = 0.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file that is not measured yet, and how it came about.

    Attributes:
        content: The flatbuffer, without metadata.
        recipe: With its protected layers.
        float_model: What was quantized.
        method: How ranges were chosen, or empty.
        rounded: Whether weights are rounded by what they change, not to the nearest.
        lifted: Whether attention's weights are, before they are rounded.
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
    rounded: bool = False
    lifted: bool = False
    smoothed: tuple[str, ...] = ()
    rotation: Rotation = NONE
    not_rotated: str = ""
    protected: tuple[str, ...] = ()
    snr_db: float | None = None
    chosen_on: int = 0

    @property
    def methods(self) -> str:
        """How ranges were chosen and weights rounded, in words; empty for neither."""
        return ", ".join(filter(None, (self.method, "GPTQ" if self.rounded else "")))


class Candidates:
    """Makes files of one model by recipe.

    Args:
        floats: What is quantized.
        splits: Images to calibrate and to compare on.
    """

    def __init__(self, floats: FloatModels, splits: Splits):
        self._floats, self._splits = floats, splits

    def make(self, recipe: QuantizationRecipe) -> Candidate:
        """The file of a recipe, with all that is measured to pay.

        Raises:
            ValueError: If it needs images and has none or too few.
            RuntimeError: If it could not be applied to all of the model.
        """
        plain = self.make_plain(recipe)
        if recipe.is_narrow:  # what comes next is another matter once they are rounded
            plain = self._rounded_if_better(plain)
        made = self._lifted_if_better(self._rotated_if_better(plain))
        if recipe.images_for and made.rotation.stream is None:  # else none stands out
            made = self._smoothed_if_better(made)
        rounded = self._rounded_if_better(made)
        if made.rotation == NONE:
            return rounded
        # Both mend a part of the same errors, and together may be less than one.
        tried = (rounded, self._rounded_if_better(plain))
        return max(tried, key=lambda it: it.snr_db)

    def make_plain(self, recipe: QuantizationRecipe) -> Candidate:
        """The same but for rotation, scales and rounding: only ranges are chosen."""
        self._check_pruning(recipe)
        if recipe.images_for:
            if self._splits.calibration is None:
                raise ValueError(
                    f"Recipe {recipe.name!r} needs images {recipe.images_for}."
                )
            calibration.check_count(self._splits.calibration)
        start = Candidate(b"", recipe, self._floats.file(recipe.without))
        return self._by_best_method(start)

    def _check_pruning(self, recipe: QuantizationRecipe) -> None:
        graph = self._floats.graph(recipe.without) if recipe.integers_only else None
        if graph is not None and graph.prunings:
            names = ", ".join(it.name for it in graph.prunings)
            raise RuntimeError(
                f"Recipe {recipe.name!r} can't prune tokens ({names}): TFLite orders "
                "floats alone. Every other recipe can, and 'pool' needs no order."
            )

    def with_recipe(
        self, candidate: Candidate, recipe: QuantizationRecipe
    ) -> Candidate:
        """The same file by another recipe, and all else as it was chosen."""
        return self._requantize(candidate, recipe=recipe)

    def _requantize(self, candidate: Candidate, **changes: Any) -> Candidate:
        """The candidate with these changes, quantized anew and without a score."""
        changed = dataclasses.replace(candidate, **changes, snr_db=None)
        content = quantize(
            changed.float_model, changed.recipe, *self._measured_for(changed)
        )
        return dataclasses.replace(changed, content=content)

    def damage(self, candidate: Candidate) -> sensitivity.Damage:
        """The layers of a file, by the damage that each does alone."""
        return sensitivity.Damage(
            candidate.float_model,
            candidate.recipe,
            *self._measured_for(candidate),
            self._splits.compared,
        )

    def _by_best_method(self, candidate: Candidate) -> Candidate:
        """Its float model by the best of several ways to choose ranges."""
        recipe = candidate.recipe
        methods = ["min_max" if recipe.has_activations else ""]
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

    def _rounded_if_better(self, candidate: Candidate) -> Candidate:
        """The file with weights rounded by what they change, if it keeps more."""
        recipe = candidate.recipe
        if candidate.rounded or not recipe.has_integers or self._too_few_images():
            return candidate
        rounded = self._requantize(candidate, rounded=True)
        tried = map(self._scored, (candidate, rounded))
        return max(tried, key=lambda it: it.snr_db)

    def _rotated_if_better(self, candidate: Candidate) -> Candidate:
        """The file of a rotated graph, if it keeps more of the logits."""
        recipe = candidate.recipe
        if not recipe.gains_from_rotation or not self._floats.graph(recipe.without):
            return candidate
        if why := self._why_not_rotated(recipe):
            return dataclasses.replace(candidate, not_rotated=why)
        plain = self._scored(candidate)
        best = self._better(plain, Rotation(self._seed))
        best = self._better(best, best.rotation._replace(heads=0))
        if best.snr_db <= plain.snr_db + LEAST_TURN_DB:
            return plain
        # The ranges that were best for outliers need not be so for the others.
        return self._by_best_method(best) if recipe.has_ranges else best

    @functools.cached_property
    def _seed(self) -> int:
        """Of the rotation for all recipes: that by which `dynamic_int8` keeps the most.

        It is the quickest to make, and its weights are those of the others.
        """
        recipe = QUANTIZATION_RECIPES["dynamic_int8"]
        start = Candidate(
            b"", recipe, self._floats.file(recipe.without), snr_db=-np.inf
        )
        bar = tqdm(SEEDS, desc="Rotating", leave=False, delay=2, disable=None)
        tried = [self._better(start, Rotation(seed)) for seed in bar]
        return max(tried, key=lambda it: it.snr_db).rotation.stream

    def _why_not_rotated(self, recipe: QuantizationRecipe) -> str:
        if why := self._too_few_images():
            return why
        return why_not_rotated(self._floats.graph(recipe.without))

    def _too_few_images(self) -> str:
        images = self._splits.compared
        count = 0 if images is None else len(images)
        few = count < calibration.LEAST_IMAGES
        return f"to choose on, there are {count} images" if few else ""

    def _better(self, best: Candidate, rotation: Rotation) -> Candidate:
        """The best so far, or its recipe and method with this rotation."""
        float_model = self._floats.file(best.recipe.without, rotation)
        rotated = self._requantize(best, float_model=float_model, rotation=rotation)
        return max(best, self._scored(rotated), key=lambda it: it.snr_db)

    def _lifted_if_better(self, candidate: Candidate) -> Candidate:
        """The file with attention's weights lifted, if that pays."""
        recipe = candidate.recipe
        if not recipe.rounds_attention or not self._floats.graph(recipe.without):
            return candidate
        return self._if_it_pays(self._lift(candidate), candidate)

    def _lift(self, candidate: Candidate) -> Candidate:
        graph = lift_weights(self._graph(candidate))
        lifted = dataclasses.replace(
            candidate, float_model=convert_graph(graph), lifted=True
        )
        return self._by_best_method(lifted)

    def _if_it_pays(self, changed: Candidate, candidate: Candidate) -> Candidate:
        """What takes more time while running, if it keeps that much more."""
        changed, candidate = map(self._scored, (changed, candidate))
        paid = changed.snr_db > candidate.snr_db + LEAST_GAIN_DB
        return changed if paid else candidate

    def _graph(self, candidate: Candidate) -> Graph | None:
        return self._floats.graph(
            candidate.recipe.without, candidate.rotation, candidate.lifted
        )

    def _smoothed_if_better(self, candidate: Candidate) -> Candidate:
        """The file with scales between norms and dense layers, if they pay."""
        graph = self._graph(candidate)
        smoother = graph and self._smooth(graph, candidate)
        if smoother is graph:
            return candidate
        pairs = zip(graph.branches, smoother.branches, strict=True)
        names = tuple(new.name for old, new in pairs if new is not old)
        smoothed = self._requantize(
            candidate, float_model=convert_graph(smoother), smoothed=names
        )
        return self._if_it_pays(smoothed, candidate)

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

    def _measured_for(
        self, candidate: Candidate
    ) -> tuple[Mapping[str, Range], Mapping[str, Moments] | None]:
        """Ranges of activations, and moments of what layers read, as far as it has any."""
        float_model, recipe = candidate.float_model, candidate.recipe
        ranges = {}
        if candidate.method:
            statistics = self._floats.statistics(float_model)
            operations = read_operations(float_model)
            ranges = calibration.ranges(
                statistics, operations, recipe, candidate.method
            )
        return ranges, self._floats.moments(float_model) if candidate.rounded else None
