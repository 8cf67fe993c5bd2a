"""What a training is to be: what is asked for, and what follows where nobody says."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vit.config import ViTConfig, check_choice
from keras_vit.data.pipeline import ImageSource
from keras_vit.files import load_model
from keras_vit.model import build_vit
from keras_vit.reuse import config_of, with_fewer_tokens, with_head, with_image_size
from keras_vit.training.defaults import (
    BATCH_SIZE,
    FEW_PHOTOS,
    are_photos,
    fit_recipe,
    new_config,
    why_small,
    with_fields,
)
from keras_vit.training.recipes import (
    FEWER_TOKENS,
    TRAINING_RECIPES,
    TrainingRecipe,
)

# As of `ViTConfig.reduce_tokens`.
Reductions = float | str | tuple[tuple[int, str, float], ...]
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A model, how to train it, and why.

    Attributes:
        config: Sizes of the model; with `origin`, its classes alone count.
        recipe: How to train it.
        batch_size: Images a step.
        seed: Of first weights, order, augmentation and dropout.
        precision: Name of Keras' dtype policy.
        origin: A `.keras` file to start from, or `None`.
        teacher: A `.keras` file to learn from, or `None`.
        image_size: Height and width for the model of `origin`, or `None` for its own.
        reduce_tokens: How that goes on with fewer tokens, as of `ViTConfig`, or `None`.
        reasons: Sentences that say what follows from the number of images, and how to
            have it otherwise; none where nothing does.
    """

    config: ViTConfig
    recipe: TrainingRecipe
    batch_size: int = BATCH_SIZE
    seed: int = 0
    precision: str = "float32"
    origin: str | None = None
    teacher: str | None = None
    image_size: tuple[int, int] | None = None
    reduce_tokens: Reductions | None = None
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)

    def build(self, strategy: tf.distribute.Strategy | None = None) -> keras.Model:
        """The model before its training; Keras' dtype policy and seed are set.

        Args:
            strategy: On whose devices it is built; on the default one if `None`.
        """
        keras.config.set_dtype_policy(self.precision)
        keras.utils.set_random_seed(self.seed)
        with strategy.scope() if strategy else contextlib.nullcontext():
            if self.origin is None:
                return build_vit(self.config)
            names = self.config.class_names
            model = with_head(load_model(self.origin), len(names), names)
            if self.image_size:
                model = with_image_size(model, self.image_size)
            if self.reduce_tokens is not None:
                model = with_fewer_tokens(model, self.reduce_tokens)
            return model


def plan_for(
    source: ImageSource,
    *,
    image_size: tuple[int, int] | None = None,
    drop_path: float = 0.0,
    seed: int = 0,
    precision: str = "float32",
    origin: str | None = None,
    teacher: str | None = None,
    reduce_tokens: Reductions | None = None,
    **given: Any,
) -> TrainingPlan:
    """How to train on a data set.

    Args:
        source: The images.
        image_size: Height and width that the model sees, also that of `origin`.
        drop_path: Of the model's last block.
        seed: As of `TrainingPlan`.
        precision: As there.
        origin: As there.
        teacher: As there; a new model gets a distillation token.
        reduce_tokens: As of `ViTConfig`. A trained model then learns from itself with
            all tokens, where no other teacher is named and it knows the same classes.
        **given: Other arguments of `plan_training`.

    Raises:
        ValueError: As there.
    """
    count = source.splits["train"].count
    shape = source.image_shape or source.usual_shape
    if "flip" not in given and shape is None and source.are_grey():
        given["flip"] = False  # scanned pages rather than photographs
    if origin and reduce_tokens is not None:
        given.setdefault("recipe", TRAINING_RECIPES[FEWER_TOKENS])
        if teacher is None and image_size is None and _knows(origin, source):
            teacher = origin
    plan = plan_training(
        count,
        source.class_names,
        shape,
        image_size=None if origin else image_size,
        trained=origin is not None,
        **given,
    )
    config = dataclasses.replace(plan.config, drop_path=drop_path)
    if teacher and not origin:
        config = _with_distillation_token(config)
    if reduce_tokens is not None and not origin:
        config = dataclasses.replace(config, reduce_tokens=reduce_tokens)
    return dataclasses.replace(
        plan,
        config=config,
        seed=seed,
        precision=precision,
        origin=origin,
        teacher=teacher,
        image_size=image_size if origin else None,
        reduce_tokens=reduce_tokens if origin else None,
    )


def _knows(origin: str, source: ImageSource) -> bool:
    """Whether a model in a file has the classes of a data set."""
    return config_of(load_model(origin)).class_names == tuple(source.class_names)


def plan_again(
    source: ImageSource,
    stored: dict[str, Any],
    *,
    variant: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str | None = None,
    drop_path: float | None = None,
    reduce_tokens: Reductions | None = None,
    recipe: TrainingRecipe | None = None,
    batch_size: int | None = None,
    **given: Any,
) -> TrainingPlan:
    """The plan of a run that was begun; whatever is given takes the place of its own.

    `train` finds out whether the run may go on with that.

    Args:
        source: The images.
        stored: What `runs.settings.read_settings` gives of it.
        variant: As of `plan_training`, and those that follow.
        image_size: As there.
        resize: As there.
        drop_path: As of `plan_for`.
        reduce_tokens: As there.
        recipe: As of `plan_training`.
        batch_size: As there.
        **given: Other fields of the plan or of the recipe.

    Raises:
        ValueError: If the run was begun by a version with other fields.
    """
    fields = ("seed", "precision", "origin", "teacher")
    own = {
        name: given.pop(name, stored[name])
        for name in fields
        if name in given or name in stored
    }
    config = _restore(ViTConfig, stored["config"])
    resize, size = resize or config.resize, image_size or config.image_size
    drop_path = config.drop_path if drop_path is None else drop_path
    if reduce_tokens is None:
        reduce_tokens = config.reduce_tokens
    if variant:
        shape = source.class_names, source.image_shape or source.usual_shape
        config = new_config(*shape, variant, size, resize)
        config = _with_distillation_token(config) if own.get("teacher") else config
    changes = {"image_size": size, "resize": resize, "drop_path": drop_path}
    config = dataclasses.replace(config, **changes, reduce_tokens=reduce_tokens)
    recipe = recipe or _restore(TrainingRecipe, stored["recipe"])
    wanted = stored.get("batch_size", BATCH_SIZE) if batch_size is None else batch_size
    batch_size = min(wanted, source.splits["train"].count)
    return TrainingPlan(
        config=config,
        recipe=with_fields(recipe, batch_size, **given),
        batch_size=batch_size,
        image_size=size if own.get("origin") else None,
        reduce_tokens=config.reduce_tokens if own.get("origin") else None,
        **own,
    )


def _restore(kind: type, fields: dict[str, Any]) -> Any:
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
    }
    try:
        return kind(**fields)
    except TypeError as error:  # a field of another name, or of another type
        raise ValueError(
            f"The run was begun by another version of keras_vit: {error}"
        ) from error


def _with_distillation_token(config: ViTConfig) -> ViTConfig:
    """The same with a distillation token, and the class token that it stands beside."""
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    return dataclasses.replace(config, positions_cover_prefix=None, **tokens)


def plan_training(
    num_images: int,
    class_names: Sequence[str],
    image_shape: tuple[int, int, int] | None = None,
    *,
    recipe: TrainingRecipe | None = None,
    batch_size: int | None = None,
    variant: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
    trained: bool = False,
    **fields: Any,
) -> TrainingPlan:
    """The plan for so many images; whatever is given stays as it is.

    Args:
        num_images: Number of training images.
        class_names: Name of each class.
        image_shape: (height, width, channels) shared by all images, or `None`.
        recipe: How to train; if `None`, the default, which few images change more.
        batch_size: Images a step.
        variant: Size and patch side of the model.
        image_size: Height and width that the model sees, in pixels.
        resize: `"stretch"` or `"crop"`.
        trained: Whether a trained model is gone on with, so that `config` is not used.
        **fields: Fields of the recipe; a learning rate is that of the batches to come.

    Raises:
        ValueError: If a field is out of its range.
    """
    photos = are_photos(image_shape)
    few_photos = photos and num_images < FEW_PHOTOS
    config = new_config(
        class_names, image_shape, variant, image_size, resize, few_photos
    )
    reasons = []
    if few_photos and variant is None and config.stem and not trained:
        reasons.append(why_small(config, num_images, image_size is None))
    if few_photos and recipe is None and config.channels == 3 and "flip" not in fields:
        fields["flip"] = True
        reasons.append(
            "Images are mirrored at random; where left and right matter, as in letters "
            "and signs: --set flip=false."
        )
    recipe, batch_size, why = fit_recipe(
        recipe or TrainingRecipe(), num_images, batch_size, photos, **fields
    )
    return TrainingPlan(
        config=config, recipe=recipe, batch_size=batch_size, reasons=(*reasons, *why)
    )
