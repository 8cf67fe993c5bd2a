"""What is trained follows from the number of images, and what is given stays."""

import dataclasses

import pytest

from keras_vit import plan_training
from keras_vit.training.defaults import FEW_PHOTOS, LEAST_STEPS, new_config
from keras_vit.training.recipes import TRAINING_RECIPES, TrainingRecipe

NAMES = ("circle", "square", "triangle")
# The demo's digits, Fashion-MNIST, and CIFAR-10.
MEASURED = [(1_232, (8, 8, 1)), (54_000, (28, 28, 1)), (45_000, (32, 32, 3))]


def steps_of(plan, count):
    return count * plan.recipe.passes // plan.batch_size * plan.recipe.epochs


@pytest.mark.parametrize("count", [1, 6, 31, 42, 77, 106, 420, 999, 2_100, 19_999])
@pytest.mark.parametrize("shape", [None, (300, 400, 3), (300, 400, 1)])
def test_photographs_get_enough_steps_of_a_small_model(count, shape):
    plan = plan_training(count, NAMES, shape)
    assert steps_of(plan, count) >= LEAST_STEPS
    # A thousandth of the first weights is left in the average half way, or less.
    assert plan.recipe.ema_momentum ** (steps_of(plan, count) / 2) < 1.1e-3
    assert plan.batch_size <= count
    assert plan.config.width < 192 and plan.config.stem
    assert plan.config.class_names == NAMES
    assert plan.recipe.epochs == 60
    assert plan.recipe.flip == (plan.config.channels == 3)
    assert ("flip=false" in " ".join(plan.reasons)) == plan.recipe.flip


@pytest.mark.parametrize(("count", "shape"), MEASURED)
@pytest.mark.parametrize("given", [{}, {"epochs": 3}, {"learning_rate": 1e-3}])
def test_small_images_that_are_many_are_trained_as_ever(count, shape, given):
    plan = plan_training(count, NAMES, shape, **given)
    assert plan.reasons == () and plan.batch_size == 64
    assert plan.config == new_config(NAMES, shape)
    batch = 64 if "learning_rate" in given else TrainingRecipe().batch_size
    assert plan.recipe == TrainingRecipe(**given, batch_size=batch)


def test_many_photographs_get_the_large_model():
    plan = plan_training(FEW_PHOTOS, NAMES)
    assert plan.config.width == 192 and plan.config.image_size == (224, 224)
    assert plan.recipe == TrainingRecipe() and plan.reasons == ()


def test_few_small_images_keep_their_size_and_are_not_mirrored():
    plan = plan_training(70, NAMES, (32, 32, 3))
    assert plan.config == new_config(NAMES, (32, 32, 3))
    assert steps_of(plan, 70) >= LEAST_STEPS and not plan.recipe.flip


def test_what_is_given_stays():
    given = {
        "epochs": 7,
        "passes": 2,
        "flip": False,
        "ema_momentum": 0.5,
        "translation": 0.0,
        "rand_augment": 0.125,
    }
    plan = plan_training(
        42, NAMES, variant="Ti/16", image_size=(96, 64), batch_size=20, **given
    )
    assert dataclasses.asdict(plan.recipe).items() >= given.items()
    assert plan.batch_size == 20
    assert plan.config.image_size == (96, 64) and plan.config.width == 192
    assert plan_training(42, NAMES, variant="Ti/16").config.image_size == (224, 224)
    # A rate that is given is that of the steps.
    plan = plan_training(42, NAMES, learning_rate=1e-3, accumulation=2)
    assert plan.recipe.peak_rate(plan.batch_size) == pytest.approx(1e-3)


def test_a_recipe_that_is_given_is_changed_in_its_steps_alone():
    plan = plan_training(42, NAMES, recipe=TRAINING_RECIPES["finetune"], trained=True)
    changed = dataclasses.replace(plan.recipe, passes=1, keep="best")
    assert changed == TRAINING_RECIPES["finetune"] and steps_of(plan, 42) >= LEAST_STEPS
    assert "convolutions" not in " ".join(plan.reasons)


def test_the_last_epoch_is_kept_where_few_images_can_not_tell():
    assert plan_training(420, NAMES).recipe.keep == "last"
    assert plan_training(2_100, NAMES).recipe.keep == "best"
    assert plan_training(420, NAMES, keep="best").recipe.keep == "best"
    assert plan_training(420, NAMES, patience=5).recipe.keep == "best"


def test_too_few_epochs_are_said_to_be_few():
    assert "1,000 are wanted" in plan_training(42, NAMES, epochs=5).reasons[-1]
    plan = plan_training(42, NAMES, epochs=1, passes=1)
    assert plan.recipe.ema_momentum == 0.0


def test_epochs_that_are_given_are_single_passes_where_they_are_enough():
    plan = plan_training(420, NAMES, epochs=300)
    assert (plan.recipe.passes, plan.batch_size) == (1, 64)
    plan = plan_training(15_000, NAMES, epochs=1)
    assert (plan.recipe.passes, plan.batch_size, plan.recipe.keep) == (1, 64, "best")


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((64, 64), (8, 8)),
        ((96, 96), (12, 12)),
        ((224, 224), (7, 7)),
        ((64, 256), (4, 16)),
    ],
)
def test_a_size_that_is_given_is_cut_into_about_as_many_patches(size, grid):
    assert plan_training(42, NAMES, image_size=size).config.grid == grid


def test_sizes_that_no_such_model_fits_are_taken_as_ever():
    plan = plan_training(42, NAMES, image_size=(8, 16))
    assert plan.config == new_config(NAMES, None, image_size=(8, 16))
    with pytest.raises(ValueError, match="patch_size must divide image_size"):
        plan_training(42, NAMES, image_size=(50, 50))
