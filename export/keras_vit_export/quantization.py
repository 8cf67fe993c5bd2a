"""Applies a recipe to a float `.tflite` with litert-quantizer, and counts what it did."""

import contextlib
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from keras_vit_export.inspection import (
    read_operations,
    tensor_types,
    weight_types,
)
from keras_vit_export.recipes import GPTQ, Recipe, Rule

Range = tuple[float, float]


def quantize(
    float_model: bytes,
    recipe: Recipe,
    ranges: Mapping[str, Range] | None = None,
    images: np.ndarray | None = None,
) -> bytes:
    """Applies a recipe to a float `.tflite`.

    Args:
        float_model: The file's content, with a signature `"serve"`.
        recipe: What to do.
        ranges: Of each activation that becomes an integer, by name.
        images: Uint8 `(count, height, width, c)`, for rules of GPTQ.

    Raises:
        RuntimeError: If a weight was left in another type than the recipe's, since
            litert-quantizer skips what it does not support without a word.
    """
    if not recipe.rules:
        return float_model
    from litert_quantizer import Quantizer

    rules = [rule.as_litert() for rule in _fitting(recipe, float_model)]
    quantizer = Quantizer(bytearray(float_model), rules)
    calibrated = {
        name: {"min": np.array(low), "max": np.array(high)}
        for name, (low, high) in (ranges or {}).items()
    }
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
        if any(rule.algorithm == GPTQ for rule in recipe.rules):
            examples = [{"image": image[None].astype("float32")} for image in images]
            calibrated = quantizer.calibrate({"serve": examples}, num_threads=2)
        result = quantizer.quantize(
            calibrated or None, enable_progress_bar=False, enable_progress_report=False
        )
    model = bytes(result.quantized_model)
    _check(model, recipe)
    return model


def _fitting(recipe: Recipe, float_model: bytes) -> tuple[Rule, ...]:
    """The rules, with one scale an output where weights do not divide into blocks."""
    more = []
    if any(rule.block for rule in recipe.rules):
        for operation in read_operations(float_model):
            rule = recipe.rule_for(operation.kind, operation.scope)
            if rule and rule.block and operation.weight_shape[-1] % rule.block:
                scope = f"^{re.escape(operation.scope)}$"
                more.append(dataclasses.replace(rule, scope=scope, block=0))
    return (*recipe.rules, *more)


def protect(recipe: Recipe, scopes: Iterable[str]) -> Recipe:
    """The recipe with some operations in higher precision, by their scopes."""
    rules = tuple(
        dataclasses.replace(rule, scope=f"^{re.escape(scope)}$")
        for scope in scopes
        for rule in recipe.protected
    )
    if not rules:
        return recipe
    kept = ("FLOAT32",) if not recipe.integers_only else ()
    return dataclasses.replace(
        recipe,
        rules=recipe.rules + rules,
        weight_types=(*recipe.weight_types, *kept, "INT8"),
    )


def skipped(float_model: bytes, model: bytes, recipe: Recipe) -> dict[str, int]:
    """Operations that a rule with activations names but that stayed in floats, by kind.

    Rules for weights alone leave operations without weights as they are, which is no
    skipping.
    """
    left = Counter()
    floats = {it.scope for it in read_operations(model) if it.precision == "float32"}
    for operation in read_operations(float_model):
        rule = recipe.rule_for(operation.kind, operation.scope)
        if rule and rule.activations and operation.scope in floats:
            left[operation.kind] += 1
    return dict(left)


def _check(model: bytes, recipe: Recipe) -> None:
    found = Counter(weight_types(model))
    if not set(found) <= set(recipe.weight_types):
        raise RuntimeError(
            f"Recipe {recipe.name!r} should leave all weights "
            f"{' or '.join(recipe.weight_types)}. Received: {dict(found)}"
        )
    if recipe.integers_only:
        floats = tensor_types(model).get("FLOAT32", 0)
        casts = [it for it in read_operations(model) if it.kind == "DEQUANTIZE"]
        if floats or casts:
            raise RuntimeError(
                f"Recipe {recipe.name!r} should leave integers only. Received: {floats} "
                f"float tensors, {len(casts)} DEQUANTIZE"
            )
