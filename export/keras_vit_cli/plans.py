"""What options of `train` say of a training, as arguments of the library's plans."""

import argparse
import dataclasses
import inspect
from typing import Any

from keras_vit_device.terminal import say

from keras_vit.config import ViTConfig, check_choice, parse_reductions
from keras_vit.data import ImageSource
from keras_vit.training.plan import (
    TrainingPlan,
    plan_again,
    plan_for,
    plan_training,
)
from keras_vit.training.recipes import (
    OF_TRAINED_MODELS,
    TRAINING_RECIPES,
    TrainingRecipe,
)
from keras_vit_cli.data import AskedData

# An option that has the name of one of these is one.
_ARGUMENTS = {
    *inspect.signature(plan_for).parameters,
    *inspect.signature(plan_training).parameters,
    *(field.name for field in dataclasses.fields(TrainingRecipe)),
}


def new_plan(options: argparse.Namespace) -> tuple[ImageSource, TrainingPlan]:
    """The images, and the plan that follows from the options and their number."""
    if options.dataset is None:
        raise ValueError("--dataset is needed.")
    given = _arguments(options, options.origin)
    if options.recipe in OF_TRAINED_MODELS and options.origin is None:
        raise ValueError(f"--recipe {options.recipe} needs --from, a trained model.")
    source = AskedData.of(options).open()
    plan = plan_for(source, **given)
    if source.shape_note and not plan.origin:
        say(f"{source.shape_note}: {_what_is_taken(plan.config)}")
    return source, plan


def resumed_plan(
    options: argparse.Namespace, stored: dict[str, Any]
) -> tuple[ImageSource, TrainingPlan]:
    """The same of a run that was begun, with options that were given again."""
    given = _arguments(options, options.origin or stored.get("origin"))
    source = AskedData.of(options, stored["dataset"]).open()
    return source, plan_again(source, stored, **given)


def _what_is_taken(config: ViTConfig) -> str:
    height, width = config.image_size
    color = "in grey" if config.channels == 1 else "in colour"
    return f"the model takes {height} x {width} pixels {color}, the others are fitted."


def _arguments(options: argparse.Namespace, origin: object) -> dict[str, Any]:
    """What is given, of the arguments of `plan_for` and `plan_again`."""
    shape = (options.variant, options.resize)
    if origin and (any(shape) or options.drop_path is not None):
        raise ValueError(
            "--from brings its own size, so --variant, --resize and --drop-path don't "
            "go with it; --image-size and --reduce do."
        )
    found = {k: value for k, value in vars(options).items() if k in _ARGUMENTS}
    for name in ("origin", "teacher"):
        found[name] = found[name] and str(found[name])
    if options.reduce_tokens is not None:
        found["reduce_tokens"] = parse_reductions(options.reduce_tokens)
    if options.recipe is not None:
        check_choice("--recipe", options.recipe, TRAINING_RECIPES)
        found["recipe"] = TRAINING_RECIPES[options.recipe]
    found["flip"] = options.flip or None
    found |= dict(map(_recipe_field, options.set))
    return {name: value for name, value in found.items() if value is not None}


def _recipe_field(text: str) -> tuple[str, Any]:
    """`"mixup=0.2"` -> `("mixup", 0.2)`, of the field's own type."""
    defaults = {it.name: it.default for it in dataclasses.fields(TrainingRecipe)}
    name, _, value = text.partition("=")
    check_choice("--set", name, defaults)
    if name == "batch_size":
        raise ValueError("--set batch_size is --batch-size.")
    kind = type(defaults[name])
    if kind is tuple:
        return name, tuple(part for part in value.split(",") if part)
    if kind is bool:
        check_choice(f"--set {name}", value, ("true", "false"))
        return name, value == "true"
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(
            f"--set {name} must be of type {kind.__name__}. Received: {value!r}"
        ) from None
