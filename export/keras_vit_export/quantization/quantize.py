"""Applies a recipe to a float `.tflite` with litert-quantizer, and counts what it did."""

import contextlib
import copy
import dataclasses
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from keras_vit_device.tflite.operations import (
    Operation,
    list_operations,
    read_graph,
    read_operations,
    tensor_types,
    weight_types,
)
from litert_quantizer import Quantizer

from keras_vit_export.graph.packing import pack
from keras_vit_export.quantization.calibration import Range
from keras_vit_export.quantization.recipes import MIN_MAX, QuantizationRecipe, Rule
from keras_vit_export.quantization.rounding import Moments, round_layer

# Of the largest weight, where a grid of few bits may end.
_PARTS = np.linspace(0.95, 0.6, 8, dtype=np.float32)


def quantize(
    float_model: bytes,
    recipe: QuantizationRecipe,
    ranges: Mapping[str, Range] | None = None,
    moments: Mapping[str, Moments] | None = None,
) -> bytes:
    """Applies a recipe to a float `.tflite`.

    Args:
        float_model: The file's content, with a signature.
        recipe: What to do.
        ranges: Of each activation that becomes an integer, by name.
        moments: Of what each dense layer reads, by name, to round its weights by;
            without, each goes to the nearest.

    Raises:
        RuntimeError: If a weight was left in another type than the recipe's, since
            litert-quantizer skips what it does not support without a word.
    """
    if not recipe.rules:
        return float_model
    float_model, of_weights = _prepare(float_model, recipe, ranges or {}, moments or {})
    rules = [rule.as_litert() for rule in recipe.rules]
    quantizer = Quantizer(bytearray(float_model), rules)
    calibrated = {
        name: {"min": np.array(low), "max": np.array(high)}
        for name, (low, high) in ((ranges or {}) | of_weights).items()
    }
    with _silence():
        result = quantizer.quantize(
            calibrated or None, enable_progress_bar=False, enable_progress_report=False
        )
    model = pack(read_graph(bytes(result.quantized_model)))
    _check(model, recipe)
    return model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without litert-quantizer's own bar, and its word that a rule replaces another."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _prepare(
    float_model: bytes,
    recipe: QuantizationRecipe,
    ranges: Mapping[str, Range],
    moments: Mapping[str, Moments],
) -> tuple[bytes, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The float model, changed where litert-quantizer would break it.

    Weights that were rounded here come with the ranges of their grids.
    """
    graph = read_graph(float_model)
    changed = _unshare(graph)
    if recipe.has_activations:
        changed = _keep_outputs_alive(graph, recipe, ranges) or changed
    of_weights = _round_weights(graph, recipe, moments)
    return pack(graph) if changed or of_weights else float_model, of_weights


def _unshare(graph) -> bool:
    """Gives every kernel and bias a buffer of its own: two of zeros may share one.

    Tensors of one buffer get one scheme, though their shapes, and so their numbers of
    scales, may differ.
    """
    subgraph, taken, changed = graph.subgraphs[0], {}, False
    pairs = zip(list_operations(graph), subgraph.operators, strict=True)
    for operation, operator in pairs:
        if not operation.weight_type:
            continue
        for index in operator.inputs[1:3]:
            tensor = subgraph.tensors[index]
            if index >= 0 and taken.setdefault(tensor.buffer, index) != index:
                graph.buffers.append(copy.copy(graph.buffers[tensor.buffer]))
                tensor.buffer, changed = len(graph.buffers) - 1, True
                taken[tensor.buffer] = index
    return changed


def _round_weights(
    graph, recipe: QuantizationRecipe, moments: Mapping[str, Moments]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rounds dense layers by what they read, and gives the ranges of their grids."""
    found = {}
    if not moments:
        return found
    uses = Counter(it for one in list_operations(graph) for it in one.constants)
    for operation, kernel, bias in _weights(graph):
        rule = recipe.rule_for(operation.kind, operation.scope)
        read = operation.inputs[0]
        if rule is None or rule.algorithm != MIN_MAX or read not in moments:
            continue
        _, name, *others = (it.name for it in operation.operands)
        if any(uses[other] > 1 for other in others):
            bias = None  # another layer's too
        steps, largest = _grid(kernel, rule)
        round_layer(kernel, bias, moments[read], steps, largest)
        found[name] = (-largest * steps, largest * steps)
    return found


def _grid(kernel: np.ndarray, rule: Rule) -> tuple[np.ndarray, int]:
    """Steps of a rule's grids, `(outputs, 1)` or `(1, 1)`, and how many there are."""
    rows = kernel.reshape(1, -1) if rule.one_scale else kernel
    largest = 2 ** (rule.weights - 1) - 1
    bounds = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-9)

    def error(steps):
        units = np.clip(np.rint(rows / steps), -largest, largest)
        return np.sum((units * steps - rows) ** 2, axis=1, keepdims=True)

    best = bounds / largest
    if rule.weights < 8:
        # Of few steps each is worth having finer, and the largest weights less so.
        least = error(best)
        for part in _PARTS:
            finer = part * bounds / largest
            found = error(finer)
            best = np.where(found < least, finer, best)
            least = np.minimum(found, least)
    return best, largest


def _keep_outputs_alive(
    graph, recipe: QuantizationRecipe, ranges: Mapping[str, Range]
) -> bool:
    """Sees to it that no output has a bias that its weights can't carry.

    A bias becomes a 32-bit integer in steps of (step of the input) x (step of that
    output's weights). Where all weights of an output are zero, or nearly, the bias does
    not fit and would be cut off. One of these weights is then made as large as it takes:
    that changes the output by at most 6e-5 of its bias, 8e-3 with 16-bit activations.
    """
    changed = False
    for operation, kernel, bias in _weights(graph):
        rule = recipe.rule_for(operation.kind, operation.scope)
        if bias is None or not (rule and rule.activations):
            continue
        low, high = ranges[operation.inputs[0]]
        step = (high - low) / 255 if rule.activations == 8 else max(-low, high) / 32767
        least = 127 * np.abs(bias) / (2.0**30 * max(step, 1e-30))
        axis = -1 if operation.kind == "DEPTHWISE_CONV_2D" else 0
        outputs = np.moveaxis(kernel, axis, 0)
        for weights, bound in zip(outputs, least, strict=True):
            largest = np.unravel_index(np.abs(weights).argmax(), weights.shape)
            if abs(weights[largest]) < bound:
                weights[largest], changed = bound, True
    return changed


def _weights(graph) -> Iterator[tuple[Operation, np.ndarray, np.ndarray | None]]:
    """Dense layers and convolutions of a float model with their kernels and biases.

    The arrays are those of the graph: what is written to them is written to it.
    """
    subgraph = graph.subgraphs[0]
    pairs = zip(list_operations(graph), subgraph.operators, strict=True)
    for operation, operator in pairs:
        if operation.weight_type != "FLOAT32":
            continue
        tensors = [subgraph.tensors[i] if i >= 0 else None for i in operator.inputs]
        arrays = []
        for tensor in (*tensors, None)[1:3]:
            if tensor is None:
                arrays.append(None)
                continue
            buffer = graph.buffers[tensor.buffer]
            buffer.data = np.array(buffer.data)  # ours to write to
            arrays.append(buffer.data.view(np.float32).reshape(tensor.shape))
        yield operation, *arrays


def protect(recipe: QuantizationRecipe, scopes: Iterable[str]) -> QuantizationRecipe:
    """The recipe with some operations in higher precision, by their scopes."""
    rules = tuple(it for scope in scopes for it in _bound(recipe.protected, scope))
    if not rules:
        return recipe
    kept = ("FLOAT32",) if not recipe.integers_only else ()
    return dataclasses.replace(
        recipe,
        rules=recipe.rules + rules,
        weight_types=(*recipe.weight_types, *kept, "INT8"),
    )


def _bound(rules: Iterable[Rule], scope: str) -> list[Rule]:
    """The rules for one operation alone."""
    exact = f"^{re.escape(scope)}$"
    return [dataclasses.replace(rule, scope=exact) for rule in rules]


def count_skipped(
    float_model: bytes, model: bytes, recipe: QuantizationRecipe
) -> dict[str, int]:
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


def _check(model: bytes, recipe: QuantizationRecipe) -> None:
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
