"""What a training is to be, from options, from a run that was begun, or for the demo.

Functions import what they need, as TensorFlow is slow to.
"""

import argparse
import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING, Any

from keras_vit_export.arguments import find_source

if TYPE_CHECKING:
    from keras_vit import TrainingRecipe, ViTConfig
    from keras_vit.pipeline import ImageSource

DEMO_EPOCHS = 80


def new_config(
    source: "ImageSource",
    variant: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
) -> "ViTConfig":
    """A configuration for new images; sizes that were not given follow from them."""
    from keras_vit import ViTConfig

    height, width, channels = source.image_shape or source.usual_shape or (224, 224, 3)
    if max(height, width) > 64:
        height, width = 224, 224
    height, width = image_size or (height, width)
    side = max(height, width)
    variant = variant or (
        "nano/2" if side <= 16 else "nano/4" if side <= 64 else "Ti/16"
    )
    config = {
        "num_classes": len(source.class_names),
        "class_names": source.class_names,
        "channels": channels,
        "resize": resize,
    }
    if image_size is None:
        patch = variant.partition("/")[2]
        # Sizes of the user's own are taken as they are; ours are made to fit.
        patch = int(patch) if patch.isdecimal() and int(patch) else 1
        height, width = (
            math.ceil(length / patch) * patch for length in (height, width)
        )
    return ViTConfig.from_variant(variant, image_size=(height, width), **config)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained, on what and how.

    Attributes:
        source: The images.
        config: Sizes of the model; with `origin`, its own count.
        recipe: How to train.
        batch_size: Images a step.
        seed: Of first weights, order, augmentation and dropout.
        precision: Name of Keras' dtype policy.
        origin: A `.keras` file to start from, or `None`.
        teacher: A `.keras` file to learn from, or `None`.
    """

    source: "ImageSource"
    config: "ViTConfig"
    recipe: "TrainingRecipe"
    batch_size: int = 64
    seed: int = 0
    precision: str = "float32"
    origin: str | None = None
    teacher: pathlib.Path | str | None = None


def demo_plan(source: "ImageSource", epochs: int = DEMO_EPOCHS, seed: int = 0) -> Plan:
    """How the bundled digits, 8 x 8 pixels and not many, are learnt.

    More weight decay, dropped branches and erased rectangles than the defaults were
    chosen on validation images; 19 steps an epoch bear twice the default rate.
    """
    from keras_vit import TrainingRecipe

    config = dataclasses.replace(new_config(source), drop_path=0.1)
    recipe = TrainingRecipe(
        epochs=epochs, learning_rate=6e-3, weight_decay=0.3, random_erasing=0.25
    )
    return Plan(source, config, recipe, seed=seed)


# What a plan has that no option or unfinished run says otherwise.
_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Plan)
    if field.default is not dataclasses.MISSING
}


def new_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options of `train` make."""
    from keras_vit.config import check_choice
    from keras_vit.recipes import DEFAULT_RECIPE, OF_TRAINED_MODELS, RECIPES

    if options.dataset is None:
        raise ValueError("--dataset is needed.")
    name = options.recipe or DEFAULT_RECIPE
    check_choice("--recipe", name, RECIPES)
    if name in OF_TRAINED_MODELS and options.origin is None:
        raise ValueError(f"--recipe {name} needs --from, a trained model.")
    _check_size(options, options.origin)
    source = find_source(options)
    resize = options.resize or "stretch"
    config = new_config(source, options.variant, options.image_size, resize)
    if source.shape_note and not options.origin:
        print(f"{source.shape_note}: {_taken(config)}")
    config = _taught(config) if options.teacher else config
    config = dataclasses.replace(config, drop_path=options.drop_path or 0.0)
    return _plan(options, source, config, RECIPES[name], _DEFAULTS)


def _taken(config: "ViTConfig") -> str:
    height, width = config.image_size
    color = "in grey" if config.channels == 1 else "in colour"
    return f"the model takes {height} x {width} pixels {color}, the others are fitted."


def resumed_plan(options: argparse.Namespace, stored: dict[str, Any]) -> Plan:
    """The plan of a run that was begun, with options that were given again.

    `train` finds out whether they are the same.
    """
    from keras_vit import TrainingRecipe, ViTConfig
    from keras_vit.config import check_choice
    from keras_vit.recipes import RECIPES

    stored = _DEFAULTS | stored
    _check_size(options, options.origin or stored["origin"])
    if options.recipe:
        check_choice("--recipe", options.recipe, RECIPES)
    options.dataset = options.dataset or stored["dataset"]
    source = find_source(options)
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored["config"].items()
    }
    config = _restored(ViTConfig, fields)
    drop_path = config.drop_path if options.drop_path is None else options.drop_path
    resize = options.resize or config.resize
    size = options.image_size or config.image_size
    if options.variant:
        config = new_config(source, options.variant, size, resize)
        config = _taught(config) if options.teacher or stored["teacher"] else config
    config = dataclasses.replace(
        config, image_size=size, resize=resize, drop_path=drop_path
    )
    recipe = RECIPES.get(options.recipe) or _restored(TrainingRecipe, stored["recipe"])
    return _plan(options, source, config, recipe, stored)


def _restored(kind: type, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:  # a field of another name, or of another type
        raise ValueError(
            f"The run was begun by another version of keras_vit: {error}"
        ) from error


def _check_size(options: argparse.Namespace, origin: object) -> None:
    shape = (options.variant, options.image_size, options.resize, options.teacher)
    if origin and (any(shape) or options.drop_path is not None):
        raise ValueError(
            "--from brings its own size, so --variant, --image-size, --resize, "
            "--drop-path and --teacher don't go with it."
        )


def _plan(options: argparse.Namespace, source, config, recipe, stored) -> Plan:
    """A plan of what options give and, where they give nothing, of what is stored."""

    def given(name: str) -> Any:
        value = getattr(options, name)
        return stored[name] if value is None else value

    batch_size = min(given("batch_size"), source.splits["train"].count)
    origin = given("origin")
    return Plan(
        source,
        config,
        _changed(recipe, options, batch_size),
        batch_size=batch_size,
        seed=given("seed"),
        precision=given("precision"),
        origin=None if origin is None else str(origin),
        teacher=given("teacher"),
    )


def _taught(config: "ViTConfig") -> "ViTConfig":
    """The same with a distillation token, and the class token that it stands beside."""
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    return dataclasses.replace(config, positions_cover_prefix=None, **tokens)


def _changed(
    recipe: "TrainingRecipe", options: argparse.Namespace, batch_size: int
) -> "TrainingRecipe":
    """A training recipe with the fields that options change."""
    names = ("epochs", "patience", "learning_rate", "accumulation", "distillation")
    given = {name: getattr(options, name) for name in names}
    given["flip"] = options.flip or None
    given |= dict(map(_recipe_field, options.set))
    given = {name: value for name, value in given.items() if value is not None}
    if "learning_rate" in given:
        # It is meant as it is, so it is that of the batches to come.
        accumulation = given.get("accumulation", recipe.accumulation)
        given["batch_size"] = max(batch_size, 1) * max(accumulation, 1)
    return dataclasses.replace(recipe, **given)


def _recipe_field(text: str) -> tuple[str, Any]:
    """`"mixup=0.2"` -> `("mixup", 0.2)`, of the field's own type."""
    from keras_vit.config import check_choice
    from keras_vit.recipes import TrainingRecipe

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
