"""Which layers suffer most from a recipe, each quantized alone."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from keras_vit_device.tflite.operations import WEIGHTED, Operation, read_operations
from tqdm import tqdm

from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.quantization.calibration import Range
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import KEEP, QuantizationRecipe
from keras_vit_export.quantization.rounding import Moments


def layers(float_model: bytes, recipe: QuantizationRecipe) -> list[str]:
    """Scopes of the dense layers, convolutions and products that a recipe quantizes."""
    return [
        operation.scope
        for operation in read_operations(float_model)
        if operation.kind in WEIGHTED and _is_quantized(operation, recipe)
    ]


def _is_quantized(operation: Operation, recipe: QuantizationRecipe) -> bool:
    rule = recipe.rule_for(operation.kind, operation.scope)
    # Products of activations have no weights to quantize alone.
    return rule is not None and bool(rule.activations or operation.weight_type)


class Damage:
    """Layers of a file, by the damage that a recipe does to each alone.

    First all layers of a kind are quantized together, as the outputs of all attentions;
    then, of the kind that suffers most, one at a time; of the next kinds as far as
    anybody asks.

    Args:
        float_model: The file's content.
        recipe: What is done to each layer.
        ranges: Of every activation that the recipe quantizes.
        moments: Of what dense layers read, if their weights are rounded by them.
        images: Uint8 `(count, height, width, c)`: SNR is measured on them.
    """

    def __init__(
        self,
        float_model: bytes,
        recipe: QuantizationRecipe,
        ranges: Mapping[str, Range],
        moments: Mapping[str, Moments] | None,
        images: np.ndarray,
    ):
        self._float_model, self._recipe = float_model, recipe
        self._ranges, self._moments = ranges, moments
        self._images = images
        self._found: list[str] = []
        self._name = logits_name(read_operations(float_model))
        self._expected = read_all(float_model, [self._name], images)[self._name]
        self.layers = layers(float_model, recipe)

    def first(self, count: int) -> list[str]:
        """Scopes of so many layers, the one of the worst kind that suffers most first."""
        for kind in self.kinds:
            if len(self._found) >= count:
                break
            if kind[0] not in self._found:
                alone = self._sort([(scope,) for scope in kind])
                self._found += [scope for (scope,) in alone]
        return self._found[:count]

    @functools.cached_property
    def kinds(self) -> list[tuple[str, ...]]:
        """Scopes of the layers of each kind, the kind that suffers most first."""
        kinds: dict[str, tuple[str, ...]] = {}
        for scope in self.layers:
            kind = re.sub(r"\d+", "#", scope)
            kinds[kind] = (*kinds.get(kind, ()), scope)
        return self._sort(list(kinds.values()))

    def _sort(self, groups: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        bar = tqdm(groups, desc="Sweeping", leave=False, delay=2, disable=None)
        found = {group: self.snr_db(group) for group in bar}
        return sorted(found, key=found.get)

    def snr_db(self, scopes: Sequence[str]) -> float:
        """SNR of the logits in dB with these layers quantized, and no others."""
        recipe = only(self._recipe, scopes)
        model = quantize(self._float_model, recipe, self._ranges, self._moments)
        found = read_all(model, [self._name], self._images)
        return snr_db(self._expected, found[self._name])


def only(recipe: QuantizationRecipe, scopes: Sequence[str]) -> QuantizationRecipe:
    """The recipe for some layers, the rest in float32."""
    exact = "|".join(f"^{re.escape(scope)}$" for scope in scopes)
    rules = tuple(
        dataclasses.replace(rule, scope=f"(?={exact}){rule.scope}")
        for rule in recipe.rules
        if rule.operation not in ("INPUT", "OUTPUT") and rule.algorithm != KEEP
    )
    types = (*recipe.weight_types, "FLOAT32")
    return dataclasses.replace(
        recipe, rules=rules, weight_types=types, integers_only=False
    )
