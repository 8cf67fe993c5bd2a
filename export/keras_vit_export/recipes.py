"""Which numbers an exported model holds and computes with. Standard library only."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the float model becomes the exported one.

    Attributes:
        name: What the command line calls it.
        summary: One line for people.
        rules: Rules of litert-quantizer; none leaves the model in float32.
        weight_type: Type of all weights of dense layers and convolutions afterwards;
            anything else means that a rule was skipped.
    """

    name: str
    summary: str
    rules: tuple[Mapping[str, Any], ...] = ()
    weight_type: str


def _weights(**config: Any) -> Mapping[str, Any]:
    return types.MappingProxyType(
        {"symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"} | config
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="float32",
            summary="weights and arithmetic in 32-bit floats",
            weight_type="FLOAT32",
        ),
        Recipe(
            name="float16",
            summary="weights in 16-bit floats, arithmetic in 32-bit floats",
            rules=(
                {
                    "regex": ".*",
                    "operation": "*",
                    "algorithm_key": "float_casting",
                    "op_config": {
                        "weight_tensor_config": _weights(num_bits=16, dtype="FLOAT"),
                        "compute_precision": "FLOAT",
                        "explicit_dequantize": True,
                    },
                },
            ),
            weight_type="FLOAT16",
        ),
        Recipe(
            name="dynamic_int8",
            summary="weights in 8-bit integers, activations quantized as they come",
            rules=(
                {
                    "regex": ".*",
                    "operation": "*",
                    "algorithm_key": "min_max_uniform_quantize",
                    "op_config": {
                        "weight_tensor_config": _weights(num_bits=8),
                        "compute_precision": "INTEGER",
                        "explicit_dequantize": False,
                    },
                },
            ),
            weight_type="INT8",
        ),
    )
}

DEFAULT_RECIPE = "dynamic_int8"
