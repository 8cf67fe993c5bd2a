"""What a training is to be, from options, from a run that was begun, or for the demo."""

import argparse
import dataclasses
import pathlib
from typing import Any

from keras_vit.config import ViTConfig, check_choice
from keras_vit.data import ImageSource
from keras_vit.training.plan import new_config, plan_for, with_fields
from keras_vit.training.recipes import OF_TRAINED_MODELS, RECIPES, TrainingRecipe
from keras_vit_cli.data import find_source


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
        image_size: Height and width for the model of `origin`, or `None` for its own.
        reasons: Sentences on what follows from the number of images.
    """

    source: ImageSource
    config: ViTConfig
    recipe: TrainingRecipe
    batch_size: int = 64
    seed: int = 0
    precision: str = "float32"
    origin: str | None = None
    teacher: pathlib.Path | str | None = None
    image_size: tuple[int, int] | None = None
    reasons: tuple[str, ...] = ()


def demo_plan(source: ImageSource, epochs: int, seed: int = 0) -> Plan:
    """How the bundled digits, 8 x 8 pixels and not many, are learnt.

    More weight decay, dropped branches and erased rectangles than the defaults were
    chosen on validation images; 19 steps an epoch bear twice the default rate.
    """
    config = new_config(source.class_names, source.image_shape)
    config = dataclasses.replace(config, drop_path=0.1)
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
    """The plan that follows from the options of `train` and the number of images."""
    if options.dataset is None:
        raise ValueError("--dataset is needed.")
    if options.recipe:
        check_choice("--recipe", options.recipe, RECIPES)
    if options.recipe in OF_TRAINED_MODELS and options.origin is None:
        raise ValueError(f"--recipe {options.recipe} needs --from, a trained model.")
    _check_size(options, options.origin)
    source = find_source(options)
    trained = options.origin is not None
    made = plan_for(
        source,
        recipe=RECIPES.get(options.recipe),
        batch_size=options.batch_size,
        variant=options.variant,
        image_size=None if trained else options.image_size,
        resize=options.resize or "stretch",
        trained=trained,
        **_given_fields(options),
    )
    if source.shape_note and not trained:
        print(f"{source.shape_note}: {_taken(made.config)}")
    config = _taught(made.config) if options.teacher else made.config
    config = dataclasses.replace(config, drop_path=options.drop_path or 0.0)
    return Plan(
        source,
        config,
        made.recipe,
        made.batch_size,
        image_size=options.image_size if trained else None,
        reasons=made.reasons,
        **_chosen(options, _DEFAULTS),
    )


def _taken(config: ViTConfig) -> str:
    height, width = config.image_size
    color = "in grey" if config.channels == 1 else "in colour"
    return f"the model takes {height} x {width} pixels {color}, the others are fitted."


def resumed_plan(options: argparse.Namespace, stored: dict[str, Any]) -> Plan:
    """The plan of a run that was begun, with options that were given again.

    `train` finds out whether they are the same.
    """
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
        shape = source.class_names, source.image_shape or source.usual_shape
        config = new_config(*shape, options.variant, size, resize)
        config = _taught(config) if options.teacher or stored["teacher"] else config
    config = dataclasses.replace(
        config, image_size=size, resize=resize, drop_path=drop_path
    )
    recipe = RECIPES.get(options.recipe) or _restored(TrainingRecipe, stored["recipe"])
    given = stored["batch_size"] if options.batch_size is None else options.batch_size
    batch_size = min(given, source.splits["train"].count)
    recipe = with_fields(recipe, batch_size, **_given_fields(options))
    chosen = _chosen(options, stored)
    size = config.image_size if chosen["origin"] else None
    return Plan(source, config, recipe, batch_size, image_size=size, **chosen)


def _restored(kind: type, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:  # a field of another name, or of another type
        raise ValueError(
            f"The run was begun by another version of keras_vit: {error}"
        ) from error


def _check_size(options: argparse.Namespace, origin: object) -> None:
    shape = (options.variant, options.resize, options.teacher)
    if origin and (any(shape) or options.drop_path is not None):
        raise ValueError(
            "--from brings its own size, so --variant, --resize, --drop-path and "
            "--teacher don't go with it; --image-size does."
        )


def _chosen(options: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Any]:
    """Fields of a plan by options and, where they give nothing, as they are stored."""
    names = ("seed", "precision", "origin", "teacher")
    given = {name: getattr(options, name) for name in names}
    found = {k: stored[k] if value is None else value for k, value in given.items()}
    return found | {"origin": None if found["origin"] is None else str(found["origin"])}


def _taught(config: ViTConfig) -> ViTConfig:
    """The same with a distillation token, and the class token that it stands beside."""
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    return dataclasses.replace(config, positions_cover_prefix=None, **tokens)


def _given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the training recipe that options give."""
    names = ("epochs", "patience", "learning_rate", "accumulation", "distillation")
    given = {name: getattr(options, name) for name in names}
    given["flip"] = options.flip or None
    given |= dict(map(_recipe_field, options.set))
    return {name: value for name, value in given.items() if value is not None}


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
