"""A model made ready for training steps: what is frozen, computed, compiled."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_vit.config import ViTConfig
from keras_vit.data.pipeline import ImageData
from keras_vit.layers import FirstTokens
from keras_vit.reuse import switch
from keras_vit.training.distillation import Student
from keras_vit.training.optimizer import make_optimizer
from keras_vit.training.recipes import TrainingRecipe


def others_frozen(
    model: keras.Model, recipe: TrainingRecipe
) -> contextlib.AbstractContextManager[None]:
    """While the block runs, layers that the recipe does not train are frozen.

    Raises:
        ValueError: If the recipe names a layer that the model has not.
    """
    names = [layer.name for layer in model.layers]
    for part in recipe.trainable:
        if not any(name.startswith(part) for name in names):
            raise ValueError(
                f"trainable must name layers, of {', '.join(names)}. Received: {part!r}"
            )
    frozen = [
        layer
        for layer in model.layers
        if recipe.trainable and not layer.name.startswith(recipe.trainable)
    ]
    return switch(frozen, "trainable", False)


def first_tokens_alone(model: keras.Model) -> contextlib.AbstractContextManager[None]:
    """While the block runs, training computes no token that the pool does not read.

    Args:
        model: Built by `build_vit`, to be trained for its own output and no other.
    """
    found = [layer for layer in model.layers if isinstance(layer, FirstTokens)]
    return switch(found, "alone", True)


@contextlib.contextmanager
def fits_in_memory(batch_size: int) -> Iterator[None]:
    """Around steps of training: says it in one line if the device has no room for them.

    Raises:
        MemoryError: If it hasn't.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
            f"A step of {batch_size} images needs more memory than the device has; take "
            "a smaller batch size, and accumulation for the rest."
        ) from error


def compile_model(
    model,
    config: ViTConfig,
    recipe: TrainingRecipe,
    data: ImageData,
    teacher,
    restarted: int = 0,
) -> keras.Model:
    """Compiles and builds, so that a checkpoint finds every variable in its place.

    Args:
        restarted: Epochs that were done when the learning rate's course began anew.
    """
    if not model.trainable_variables:
        raise ValueError(
            "No layer would be trained. Received: trainable="
            f"{recipe.trainable}, layers {', '.join(it.name for it in model.layers)}"
        )
    strategy = model.distribute_strategy
    steps = (recipe.epochs - restarted) * data.training_images.steps_per_epoch
    with strategy.scope():
        trained = model if teacher is None else Student(model, teacher, recipe)
        trained.compile(
            optimizer=make_optimizer(recipe, steps, data.training_images.batch_size),
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=config.head_output == "logits",
                label_smoothing=recipe.label_smoothing,
            ),
            metrics=["accuracy"] if teacher is None else None,  # a student has its own
            # Keras' "auto" leaves XLA off on a CPU; on several replicas it fails.
            jit_compile=strategy.num_replicas_in_sync == 1,
        )
        shape = (data.training_images.batch_size, *config.image_size, config.channels)
        images = keras.KerasTensor(shape, "float32")
        targets = keras.KerasTensor((shape[0], config.num_classes), "float32")
        trained._symbolic_build(data_batch=(images, targets))
    return trained
