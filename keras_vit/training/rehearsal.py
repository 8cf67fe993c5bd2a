"""What a training would take: its memory, estimated, and its time, from a few steps."""

import dataclasses
import pathlib
import statistics

import keras

from keras_vit.config import ViTConfig
from keras_vit.data.pipeline import ImageData
from keras_vit.reuse import config_of
from keras_vit.training.callbacks import Pace, Progress
from keras_vit.training.compiling import (
    compile_model,
    first_tokens_alone,
    fits_in_memory,
    others_frozen,
)
from keras_vit.training.distillation import check_teacher
from keras_vit.training.loop import training_batches
from keras_vit.training.recipes import TrainingRecipe

STEPS = 4
# Measured: what TensorFlow and XLA's compiler take beside the arrays, and how much more
# than the activations that are named below a step holds at its peak.
OVERHEAD_BYTES = 800_000_000
PEAK_FACTOR = 1.3


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a few steps of a training took.

    Attributes:
        compile_seconds: The first step, which compiles.
        step_seconds: Median of the others.
        images_per_second: At that pace.
        seconds: Estimate of the whole training, on this machine.
        peak_memory_bytes: Of this process so far.
    """

    compile_seconds: float
    step_seconds: float
    images_per_second: float
    seconds: float
    peak_memory_bytes: int


def rehearse(
    model: keras.Model,
    data: ImageData,
    recipe: TrainingRecipe,
    teacher: keras.Model | None = None,
) -> Rehearsal:
    """Makes a few steps of a training on one device; the model is changed by them.

    Raises:
        ValueError: If `train` would refuse the teacher, or no layer would be trained.
        MemoryError: If a batch is larger than the memory of the device.
    """
    if teacher is not None:
        check_teacher(model, teacher)
    data = data.with_passes(recipe.passes)
    config, training = config_of(model), data.training_images
    progress, pace = Progress(), Pace(training.batch_size)
    batches = training_batches(model, recipe, data, 0, progress, pace)
    with (
        others_frozen(model, recipe),
        first_tokens_alone(model),
        fits_in_memory(training.batch_size),
    ):
        trained = compile_model(model, config, recipe, data, teacher)
        trained.fit(
            batches.repeat(STEPS).take(STEPS),
            callbacks=[progress, pace],
            shuffle=False,
            verbose=0,
        )
    first, *others = (end - begin for begin, end in pace.spans)
    step = statistics.median(others)
    # Without its gradients, a step takes a third.
    validation = data.counts["validation"] / training.batch_size / 3
    epoch = (training.steps_per_epoch + validation) * step
    return Rehearsal(
        compile_seconds=first,
        step_seconds=step,
        images_per_second=training.batch_size / step,
        seconds=first + recipe.epochs * epoch,
        peak_memory_bytes=pace.figures["peak_memory_bytes"],
    )


def estimated_memory(config: ViTConfig, parameters: int, batch_size: int) -> int:
    """Bytes that training takes beside those that the process has, from sizes alone.

    Weights, gradients, AdamW's two moments and the moving average; and for each image
    what the backward pass reads: of a block the tokens before and after each norm and
    dense layer, twice the attention weights, and the convolutions of the stem.
    """
    d, m = config.width, config.mlp_dim
    blocks = sum(
        n * (10 * d + 2 * m) + 2 * config.num_heads * n * n for n in config.token_counts
    )
    height, width = config.image_size
    stem = sum(
        2.5 * filters * height * width / 4**index
        for index, filters in enumerate(config.stem)
    )
    an_image = height * width * config.channels + stem + blocks
    arrays = 5 * parameters + PEAK_FACTOR * an_image * batch_size
    return round(OVERHEAD_BYTES + 4 * arrays)


def available_memory(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Bytes that this process may still take, or `None` where that can't be found.

    Args:
        root: Where `proc` and `sys` are.
    """
    found = []
    try:
        available = _numbers(root / "proc/meminfo")["MemAvailable:"]
        found.append(available * 1024)
        folder = root / "sys/fs/cgroup"  # a container's own limit
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            used = int((folder / "memory.current").read_text())
            # Files that were read and may be forgotten.
            spare = _numbers(folder / "memory.stat").get("inactive_file", 0)
            found.append(int(limit) - used + spare)
    except (OSError, KeyError):
        pass
    return min(found, default=None)


def _numbers(path: pathlib.Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in lines}
