"""What a training is to be where nobody says: it follows from the images.

Sixty passes over a hundred images in batches of 64 are sixty steps: the learning rate has
hardly risen, the moving average still holds the first weights, and a large model has
learnt nothing. So few images get smaller batches, more passes, an average that fits the
number of steps, more random changes, and a model with convolutions before its patches.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras_vit.config import ViTConfig
from keras_vit.data.folders import SMALL_SIDE
from keras_vit.training.recipes import TrainingRecipe

BATCH_SIZE = 64
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
    if are_photos(image_shape):
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


def fit_recipe(
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
    given = with_fields(recipe, 1, **fields)
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
    return with_fields(given, size, **fields), size, why


def with_fields(
    recipe: TrainingRecipe, batch_size: int, **fields: Any
) -> TrainingRecipe:
    """A recipe with fields changed; a learning rate is that of batches of this size."""
    changed = dataclasses.replace(recipe, **fields)
    if "learning_rate" in fields:
        batch = max(batch_size, 1) * changed.accumulation
        changed = dataclasses.replace(changed, batch_size=batch)
    return changed


def are_photos(image_shape: tuple[int, int, int] | None) -> bool:
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


def why_small(config: ViTConfig, num_images: int, chosen: bool) -> str:
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
