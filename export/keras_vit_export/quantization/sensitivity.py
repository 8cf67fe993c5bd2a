"""Which layers suffer most from a recipe, each quantized alone."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
from keras_vit_device.tflite.operations import WEIGHTED, Operation, read_operations
from tqdm import tqdm

from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.quantization.calibration import Range
from keras_vit_export.quantization.quantize import quantize
from keras_vit_export.quantization.recipes import KEEP, QuantizationRecipe


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


def sweep(
    float_model: bytes,
    recipe: QuantizationRecipe,
    ranges: Mapping[str, Range],
    images: np.ndarray,
    examples: np.ndarray | None = None,
) -> dict[str, float]:
    """SNR of the logits in dB with one layer quantized at a time, the worst first.

    Args:
        float_model: The file's content.
        recipe: What is done to each layer.
        ranges: Of every activation that the recipe quantizes.
        images: Uint8 `(count, height, width, c)`: SNR is measured on them.
        examples: The same, for rules of GPTQ.
    """
    name = logits_name(read_operations(float_model))
    expected = read_all(float_model, [name], images)[name]
    found = {}
    scopes = layers(float_model, recipe)
    for scope in tqdm(scopes, desc="Sweeping", leave=False, delay=2, disable=None):
        model = quantize(float_model, only(recipe, scope), ranges, examples)
        found[scope] = snr_db(expected, read_all(model, [name], images)[name])
    return dict(sorted(found.items(), key=lambda item: item[1]))


def only(recipe: QuantizationRecipe, scope: str) -> QuantizationRecipe:
    """The recipe for one layer, the rest in float32."""
    exact = f"^{re.escape(scope)}$"
    rules = tuple(
        dataclasses.replace(rule, scope=f"(?={exact}){rule.scope}")
        for rule in recipe.rules
        if rule.operation not in ("INPUT", "OUTPUT") and rule.algorithm != KEEP
    )
    types = (*recipe.weight_types, "FLOAT32")
    return dataclasses.replace(
        recipe, rules=rules, weight_types=types, integers_only=False
    )
