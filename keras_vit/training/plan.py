"""What a training is to be where nobody says: it follows from the images.

Sixty passes over a hundred images in batches of 64 are sixty steps: the learning rate has
hardly risen, the moving average still holds the first weights, and a large model has
learnt nothing. So few images get smaller batches, more passes, an average that fits the
number of steps, more random changes, and a model with convolutions before its patches.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vit.config import ViTConfig, check_choice
from keras_vit.data.folders import SMALL_SIDE
from keras_vit.data.pipeline import ImageSource
from keras_vit.files import load_model
from keras_vit.model import build_vit
from keras_vit.reuse import config_of, with_fewer_tokens, with_head, with_image_size
from keras_vit.training.recipes import (
    FEWER_TOKENS,
    TRAINING_RECIPES,
    TrainingRecipe,
)

# As of `ViTConfig.reduce_tokens`.
Reductions = float | str | tuple[tuple[int, str, float], ...]
BATCH_SIZE = 64
PRECISIONS = ("float32", "mixed_bfloat16")
PHOTO_SIDE = 224
# Training images below which a run has a least number of steps. The bundled digits are
# 1,232, and the default recipe's 1,140 steps are enough for them.
FEW_IMAGES = 1_000
# Photographs below which the model is small as well. Measured up to 2,100.
FEW_PHOTOS = 20_000
# These were chosen on drawn shapes, 42 to 420 of them, of other seeds than those of
# benchmarks/few_images.py.
FEW_BATCH_SIZE = 32
LEAST_STEPS = 1_000
FEW_SIDE = 64
FEW_SIZE = "compact3"


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
        recipe=_with_fields(recipe, batch_size, **given),
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
    photos = _are_photos(image_shape)
    few_photos = photos and num_images < FEW_PHOTOS
    config = new_config(
        class_names, image_shape, variant, image_size, resize, few_photos
    )
    reasons = []
    if few_photos and variant is None and config.stem and not trained:
        reasons.append(_why_small(config, num_images, image_size is None))
    if few_photos and recipe is None and config.channels == 3 and "flip" not in fields:
        fields["flip"] = True
        reasons.append(
            "Images are mirrored at random; where left and right matter, as in letters "
            "and signs: --set flip=false."
        )
    recipe, batch_size, why = _fit_recipe(
        recipe or TrainingRecipe(), num_images, batch_size, photos, **fields
    )
    return TrainingPlan(
        config=config, recipe=recipe, batch_size=batch_size, reasons=(*reasons, *why)
    )


def new_config(
    class_names: Sequence[str],
    image_shape: tuple[int, int, int] | None = None,
    variant: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
    few_photos: bool = False,
) -> ViTConfig:
    """A configuration for new images; sizes that were not given follow from them.

    Args:
        few_photos: Whether they are too few for a large model; the others as in
            `plan_training`.
    """
    height, width, channels = image_shape or (PHOTO_SIDE, PHOTO_SIDE, 3)
    if _are_photos(image_shape):
        side = FEW_SIDE if few_photos and variant is None else PHOTO_SIDE
        height, width = side, side
    height, width = image_size or (height, width)
    variant = variant or (few_photos and _small_variant(height, width))
    side = max(height, width)
    variant = variant or (
        "nano/2" if side <= 16 else "nano/4" if side <= SMALL_SIDE else "Ti/16"
    )
    if image_size is None:
        patch = variant.partition("/")[2]
        # Sizes of the user's own are taken as they are; ours are made to fit.
        patch = int(patch) if patch.isdecimal() and int(patch) else 1
        height, width = (
            math.ceil(length / patch) * patch for length in (height, width)
        )
    return ViTConfig.from_variant(
        variant,
        image_size=(height, width),
        num_classes=len(class_names),
        class_names=tuple(class_names),
        channels=channels,
        resize=resize,
    )


def _fit_recipe(
    recipe: TrainingRecipe,
    num_images: int,
    batch_size: int | None = None,
    photos: bool = True,
    **fields: Any,
) -> tuple[TrainingRecipe, int, tuple[str, ...]]:
    """A recipe with enough steps for so few images, images a step, and the reasons.

    Args:
        recipe: Of many images.
        num_images: Number of training images.
        batch_size: Images a step, where it is given.
        photos: Whether images are larger than `SMALL_SIDE`.
        **fields: Fields of the recipe that are given.
    """
    given = _with_fields(recipe, 1, **fields)
    size = min(BATCH_SIZE if batch_size is None else batch_size, num_images)
    steps = _steps(num_images, size, given)
    # Epochs that are given don't make few images of many, nor the other way round.
    usual = _steps(num_images, size, dataclasses.replace(given, epochs=recipe.epochs))
    few = num_images < (FEW_PHOTOS if photos else FEW_IMAGES) and size > 0
    why = ()
    if few and max(steps, usual) < LEAST_STEPS:
        if batch_size is None:
            # A power of 2, so that several devices can share it.
            size = min(FEW_BATCH_SIZE, 1 << (num_images.bit_length() - 1))
        if "passes" not in fields:
            # Of the recipe's own epochs: those that are given mean fewer or more steps.
            an_epoch = math.ceil(LEAST_STEPS / recipe.epochs * given.accumulation)
            passes = math.ceil(an_epoch * size / num_images)
            given = dataclasses.replace(given, passes=passes)
        if num_images < FEW_IMAGES and not {"keep", "patience"} & fields.keys():
            given = dataclasses.replace(given, keep="last")
        if given.ema_momentum and "ema_momentum" not in fields:
            # Half of the steps leave a thousandth of the first weights in the average.
            most = max(0.0, 1 - 14 / _steps(num_images, size, given))
            momentum = min(given.ema_momentum, round(most, 4))
            given = dataclasses.replace(given, ema_momentum=momentum)
        why = (_why_steps(given, num_images, size, steps),)
    return _with_fields(given, size, **fields), size, why


def _with_fields(
    recipe: TrainingRecipe, batch_size: int, **fields: Any
) -> TrainingRecipe:
    """A recipe with fields changed; a learning rate is that of batches of this size."""
    changed = dataclasses.replace(recipe, **fields)
    if "learning_rate" in fields:
        batch = max(batch_size, 1) * changed.accumulation
        changed = dataclasses.replace(changed, batch_size=batch)
    return changed


def _are_photos(image_shape: tuple[int, int, int] | None) -> bool:
    return image_shape is None or max(image_shape[:2]) > SMALL_SIDE


def _small_variant(height: int, width: int) -> str | None:
    """A variant for few photographs, of about 8 x 8 patches; `None` if none fits."""
    if min(height, width) < SMALL_SIDE // 2:
        return None
    wanted = math.sqrt(height * width) / 8
    sides = [p for p in range(8, 65, 8) if height % p == 0 and width % p == 0]
    if not sides:
        return None
    return f"{FEW_SIZE}/{min(sides, key=lambda side: abs(side - wanted))}"


def _steps(num_images: int, batch_size: int, recipe: TrainingRecipe) -> int:
    """Changes of the weights in all epochs."""
    an_epoch = num_images * recipe.passes // max(batch_size, 1)
    return an_epoch * recipe.epochs // recipe.accumulation


def _why_small(config: ViTConfig, num_images: int, chosen: bool) -> str:
    height, width = config.image_size
    at = f" at {height} x {width} pixels" if chosen else ""
    return (
        f"{num_images:,} training images are few for a large model, so this is a small "
        f"one with convolutions{at}; --variant and --image-size have it otherwise, and "
        "--from a pretrained model needs fewer images."
    )


def _why_steps(recipe: TrainingRecipe, num_images: int, size: int, before: int) -> str:
    after = _steps(num_images, size, recipe)
    last = (
        " The last epoch is kept, as so few validation images can't tell which was best; "
        "--set keep=best has it otherwise."
        if recipe.keep == "last"
        else ""
    )
    few = f" That is little: {LEAST_STEPS:,} are wanted." if after < LEAST_STEPS else ""
    return (
        f"An epoch is {recipe.passes} passes over {num_images:,} training images with "
        f"{size} a step: {after:,} steps in {recipe.epochs} epochs, where one pass with "
        f"{BATCH_SIZE} a step would make {before:,}; --epochs, --batch-size and "
        f"--set passes=1 have it otherwise.{few}{last}"
    )
