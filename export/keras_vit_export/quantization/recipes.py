"""Which numbers an exported model holds and computes with. Standard library only.

A recipe is data: rules for litert-quantizer, which does the quantizing, and what this
exporter does before it.
"""

import dataclasses
import re
from typing import Any

MIN_MAX = "min_max_uniform_quantize"
KEEP = "no_quantize"
CAST = "float_casting"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of some operations; of two that match, the later wins.

    Attributes:
        operation: TFLite's name of the operation, or `"*"` for all.
        scope: Regular expression that finds the operation by the names of its outputs,
            each followed by `;`.
        weights: Bits of the weights.
        activations: Bits of what goes in and comes out, by ranges that were measured
            before; `None` leaves both in float32, quantized while running where the
            weights are integers ("dynamic").
        unsigned: Whether activations are unsigned.
        one_scale: Whether all weights share one scale instead.
        algorithm: litert-quantizer's name.
    """

    operation: str
    scope: str = ".*"
    weights: int = 8
    activations: int | None = None
    unsigned: bool = False
    one_scale: bool = False
    algorithm: str = MIN_MAX

    def as_litert(self) -> dict[str, Any]:
        """The rule as litert-quantizer reads it."""
        rule = {
            "regex": self.scope,
            "operation": self.operation,
            "algorithm_key": self.algorithm,
        }
        if self.algorithm == KEEP:
            return rule
        casts = self.algorithm == CAST
        config: dict[str, Any] = {
            "weight_tensor_config": {
                "num_bits": self.weights,
                "symmetric": True,
                "granularity": "TENSORWISE" if self.one_scale else "CHANNELWISE",
                "dtype": "FLOAT" if casts else "INT",
            },
            "compute_precision": "FLOAT" if casts else "INTEGER",
            "explicit_dequantize": casts,
        }
        if self.activations:
            config["activation_tensor_config"] = {
                "num_bits": self.activations,
                # Kernels of 16-bit activations know no zero point.
                "symmetric": self.activations == 16,
                "granularity": "TENSORWISE",
                "dtype": "UINT" if self.unsigned else "INT",
            }
        return rule | {"op_config": config}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationRecipe:
    """How the float model becomes the exported one.

    Attributes:
        name: What the command line calls it.
        summary: One line for people.
        rules: What litert-quantizer does; none leaves the model in float32.
        weight_types: Types that weights of dense layers and convolutions may have
            afterwards; any other means that a rule was skipped.
        without: Rewrites that this recipe does not gain from.
        protected: Rules for layers that are kept in higher precision, to be bound to
            each layer's scope.
        integers_only: Whether not one float tensor may be left.
        tolerance: Total variation between the answers of two runtimes to one image, 0..1,
            that rounding explains: measured were 1e-6 in floats and 0.04 where activations
            become integers, but 0.2 to 0.9 where an accelerator was wrong.
    """

    name: str
    summary: str
    rules: tuple[Rule, ...] = ()
    weight_types: tuple[str, ...]
    without: tuple[str, ...] = ()
    protected: tuple[Rule, ...] = (Rule(operation="*", algorithm=KEEP),)
    integers_only: bool = False
    tolerance: float = 0.1

    def rule_for(self, kind: str, scope: str) -> Rule | None:
        """The rule that decides about an operation, or `None`."""
        found = None
        for rule in self.rules:
            if rule.operation in ("*", kind) and re.search(rule.scope, scope):
                found = None if rule.algorithm == KEEP else rule
        return found

    @property
    def images_for(self) -> str:
        """What it needs images for, in words; empty if it needs none."""
        if self.is_narrow:
            return "to round its weights by what they change"
        if self.has_activations:
            return "to measure the ranges of activations on"
        return ""

    @property
    def is_narrow(self) -> bool:
        """Whether weights have so few bits that rounding to the nearest loses much."""
        return any(rule.weights < 8 for rule in self.rules)

    @property
    def has_integers(self) -> bool:
        """Whether weights are rounded at all."""
        return any(rule.algorithm == MIN_MAX for rule in self.rules)

    @property
    def has_activations(self) -> bool:
        """Whether activations become integers by ranges that are measured before."""
        return any(rule.activations for rule in self.rules)

    @property
    def rounds_attention(self) -> bool:
        """Whether attention's weights, floats out of a softmax, get 8 bits."""
        product = self.rule_for("BATCH_MATMUL", "block_00_attention_mix;")
        softmax = self.rule_for("SOFTMAX", "block_00_attention_weights;")
        return product is not None and product.activations == 8 and softmax is None

    @property
    def has_ranges(self) -> bool:
        """Whether ranges of 8 bits are to be chosen for activations."""
        return any(rule.activations == 8 for rule in self.rules)

    @property
    def dense(self) -> Rule | None:
        """What becomes of the dense layers that read the residual stream."""
        return self.rule_for("FULLY_CONNECTED", "block_00_mlp_hidden;")

    @property
    def gains_from_rotation(self) -> bool:
        """Whether one scale serves numbers that outliers may stand among.

        Not where dense layers are floats, or what they read has 16 bits.
        """
        dense = self.dense
        return dense is not None and dense.algorithm != CAST and dense.activations != 16


def _static(*operations: str, bits: int = 8) -> tuple[Rule, ...]:
    return tuple(Rule(operation=it, activations=bits) for it in operations)


# Q, K and V share a scale behind a SPLIT, and Q is 1 / sqrt(e) of the size of K: static
# integers lose bits there, so these recipes keep three dense layers.
_APART = ("fuse_queries_keys_values",)
# It needs images, and where attention products are floats it gains nothing.
_FLOAT_PRODUCTS = ("centre_values",)
_DENSE = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_DYNAMIC = (Rule(operation="*", weights=8),)
_OF_FLOATS = 0.02  # for accelerators that compute in 16 bits

QUANTIZATION_RECIPES: dict[str, QuantizationRecipe] = {
    recipe.name: recipe
    for recipe in (
        QuantizationRecipe(
            name="float32",
            summary="weights and arithmetic in 32-bit floats",
            weight_types=("FLOAT32",),
            without=_FLOAT_PRODUCTS,
            tolerance=_OF_FLOATS,
        ),
        QuantizationRecipe(
            name="float16",
            summary="weights in 16-bit floats, arithmetic in 32-bit floats",
            rules=(Rule(operation="*", weights=16, algorithm=CAST),),
            weight_types=("FLOAT16",),
            without=_FLOAT_PRODUCTS,
            tolerance=_OF_FLOATS,
        ),
        QuantizationRecipe(
            name="dynamic_int8",
            summary="weights in 8-bit integers, activations quantized as they come",
            rules=(Rule(operation="*"),),
            weight_types=("INT8",),
            without=_FLOAT_PRODUCTS,
        ),
        QuantizationRecipe(
            name="fast_int8",
            summary="dynamic_int8 with attention products of 8-bit integers",
            rules=(
                *(Rule(operation=operation) for operation in _DENSE),
                *_static("BATCH_MATMUL"),
            ),
            weight_types=("INT8",),
        ),
        QuantizationRecipe(
            name="static_int8",
            summary="8-bit integers in dense layers, convolutions and attention "
            "products; norms, softmax, GELU and residual stream in floats",
            rules=(
                *_static(*_DENSE, "BATCH_MATMUL", "TRANSPOSE", "RESHAPE"),
                *_static("MAX_POOL_2D"),
                # What attention's weights were divided by.
                Rule(operation="TRANSPOSE", scope="_root_heads;", algorithm=KEEP),
                # The residual stream, and what tokens are chosen by.
                Rule(operation="*", scope=r"block_\d+_(prune|pool)/", algorithm=KEEP),
            ),
            weight_types=("INT8",),
            without=_APART,
            protected=_DYNAMIC,
        ),
        QuantizationRecipe(
            name="full_int8",
            summary="integers everywhere, bytes in and out: 8 bits, and 16 in norms "
            "and residual stream",
            rules=(
                *_static("*", bits=16),
                *_static(*_DENSE, "BATCH_MATMUL", "TRANSPOSE", "RESHAPE"),
                *_static("MAX_POOL_2D", "RELU", "GELU", "SOFTMAX", "LOGISTIC"),
                Rule(operation="INPUT", activations=8, unsigned=True),
                Rule(operation="OUTPUT", activations=8, unsigned=True),
            ),
            weight_types=("INT8",),
            without=_APART,
            protected=_static("*", bits=16),
            integers_only=True,
        ),
        QuantizationRecipe(
            name="int16x8",
            summary="weights in 8-bit, activations in 16-bit integers",
            rules=(
                *_static("*", bits=16),
                Rule(operation="INPUT", algorithm=KEEP),
                Rule(operation="OUTPUT", algorithm=KEEP),
            ),
            weight_types=("INT8",),
            without=_APART,
        ),
        QuantizationRecipe(
            name="int4",
            summary="weights of dense layers in 4-bit integers, activations quantized "
            "as they come; patches, and build_vit's attention outputs and head, in 8 "
            "bits",
            # Outputs of attention are a twelfth of the weights, and a quarter of what 4
            # bits lost on a pretrained ViT-S.
            rules=(
                Rule(operation="*"),
                Rule(operation="FULLY_CONNECTED", weights=4),
                Rule(operation="FULLY_CONNECTED", scope="^head|_attention_output"),
            ),
            weight_types=("INT8", "INT4"),
            without=_FLOAT_PRODUCTS,
            protected=_DYNAMIC,
        ),
    )
}

DEFAULT_RECIPE = "dynamic_int8"

# TFLite 2.14 (2023), the last release of `tflite_runtime`, which phones still have.
OLD_RUNTIME = "2.14"
# It knows no operations of 16-bit integers that norms need, and answers wrongly where
# weights have 4 bits.
_NEWER = ("full_int8", "int16x8", "int4")


def for_old_runtime(recipe: QuantizationRecipe) -> QuantizationRecipe:
    """The recipe as TFLite 2.14 computes it rightly.

    Where floats meet dense weights of 8 bits it reads the first scale alone, and says
    nothing: with a scale for each output all answers are alike.

    Raises:
        RuntimeError: If it has no such operations at all.
    """
    if recipe.name in _NEWER:
        raise RuntimeError(
            f"Recipe {recipe.name!r} needs a runtime newer than {OLD_RUNTIME}; "
            f"{', '.join(name for name in QUANTIZATION_RECIPES if name not in _NEWER)} do not."
        )
    return dataclasses.replace(
        recipe,
        rules=_with_one_scale(recipe.rules),
        protected=_with_one_scale(recipe.protected),
    )


def _with_one_scale(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    dense = "FULLY_CONNECTED"
    more = [
        dataclasses.replace(rule, operation=dense, one_scale=True)
        for rule in rules
        if rule.operation in ("*", dense)
        and rule.algorithm == MIN_MAX
        and rule.activations is None
    ]
    return (*rules, *more)
