"""Vision Transformers in Keras 3: readable layers, a functional model, `model.fit`.

Importing this package registers its layers, so `keras.saving.load_model` knows them.
"""

from keras_vit.backend import check_keras

check_keras()

from keras_vit import layers
from keras_vit.config import Preprocessing, ViTConfig
from keras_vit.data import ImageData, load_data
from keras_vit.evaluation import Evaluation
from keras_vit.model import build_vit
from keras_vit.reuse import (
    config_of,
    with_fewer_tokens,
    with_head,
    with_image_size,
    with_patch_size,
    with_rgb_input,
)
from keras_vit.training.hosts.distribution import make_strategy
from keras_vit.training.loop import TrainingRun, evaluate, train
from keras_vit.training.plan import TrainingPlan, plan_for, plan_training
from keras_vit.training.recipes import TrainingRecipe
from keras_vit.weights import load_checkpoint

__all__ = [
    "Evaluation",
    "ImageData",
    "Preprocessing",
    "TrainingPlan",
    "TrainingRecipe",
    "TrainingRun",
    "ViTConfig",
    "build_vit",
    "config_of",
    "evaluate",
    "layers",
    "load_checkpoint",
    "load_data",
    "make_strategy",
    "plan_for",
    "plan_training",
    "train",
    "with_fewer_tokens",
    "with_head",
    "with_image_size",
    "with_patch_size",
    "with_rgb_input",
]
