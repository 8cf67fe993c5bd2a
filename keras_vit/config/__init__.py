"""Sizes and switches of a model, checked. Standard library only."""

from keras_vit.config.checks import check_choice, check_class_names, check_rate
from keras_vit.config.preprocessing import Preprocessing
from keras_vit.config.reductions import Reduction, count_kept, parse_reductions
from keras_vit.config.variants import VARIANTS
from keras_vit.config.vit import (
    ACTIVATIONS,
    HEAD_ACTIVATIONS,
    OUTPUTS,
    POOLS,
    POSITIONS,
    ViTConfig,
)

__all__ = [
    "ACTIVATIONS",
    "HEAD_ACTIVATIONS",
    "OUTPUTS",
    "POOLS",
    "POSITIONS",
    "VARIANTS",
    "Preprocessing",
    "Reduction",
    "ViTConfig",
    "check_choice",
    "check_class_names",
    "check_rate",
    "count_kept",
    "parse_reductions",
]
