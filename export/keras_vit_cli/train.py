"""The command `train`, and the training in `demo`."""

import argparse
import dataclasses
import pathlib
import textwrap
from typing import Any

import keras
import tensorflow as tf
from keras_vit_device.files import check_writable, new_folder, write_json
from keras_vit_device.terminal import say

from keras_vit.chance import remarks
from keras_vit.data import ImageData, ImageSource
from keras_vit.files import load_model
from keras_vit.reuse import config_of
from keras_vit.training import loop, rehearsal
from keras_vit.training.callbacks import NoNumberError
from keras_vit.training.distillation import check_teacher
from keras_vit.training.hosts import distribution
from keras_vit.training.plan import TrainingPlan
from keras_vit.training.runs import checkpoints
from keras_vit.training.runs.settings import (
    check_more_epochs,
    is_finished,
    read_settings,
)
from keras_vit_cli.plans import new_plan, resumed_plan


def run(options: argparse.Namespace) -> int:
    """A data set -> run folder with the best model and its pictures."""
    check_writable(options.json)
    if options.dry_run:
        return _dry_run(options)
    if (options.output is None) == (options.resume is None):
        raise ValueError("Either --output for a new run or --resume is needed.")
    folder = options.resume or options.output
    # Before the other workers are waited for: they may have gone.
    if options.go_on and is_finished(folder):
        say(f"The run in '{folder}' is finished.")
        return 0
    # Before all else that uses TensorFlow.
    strategy = distribution.make_strategy(options.strategy, options.worker_timeout)
    chief = distribution.is_chief(strategy)
    begun = options.go_on and (folder / "run.json").exists()
    resume = begun or options.resume is not None
    if resume:
        source, plan, steps = _begun(options, folder)
    else:
        if chief and not options.go_on:
            new_folder(folder)
        (source, plan), steps = new_plan(options), options.checkpoint_steps or 0
        if chief:
            _print_reasons(plan)
    try:
        _, data, run = train_by_plan(
            source, plan, folder, strategy, resume=resume, checkpoint_steps=steps
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_is_kept(folder)) from None
    except NoNumberError as error:
        if not (folder / "run.json").exists():  # nothing was finished
            raise
        way = f"--resume {folder} --learning-rate with a lower one goes on before it."
        raise RuntimeError(f"{error} {way}") from error
    if chief:
        _print_run(run, data, folder)
        figures = {"top1": run.evaluation.top1, "best_epoch": run.best_epoch}
        figures |= {**run.pace, "warnings": run.warnings}
        write_json(options.json, figures)
    return 0


def _begun(options, folder: pathlib.Path) -> tuple[ImageSource, TrainingPlan, int]:
    """Images and plan of a run that goes on, and its steps between checkpoints."""
    stored = read_settings(folder)
    check_more_epochs(folder, stored, options.epochs)
    source, plan = resumed_plan(options, stored)
    if "top1" in stored:
        say(
            f"Going on after epoch {stored['epochs']}, from '{folder / 'model.keras'}', "
            "with a new optimizer and a new course of the learning rate."
        )
        steps = options.checkpoint_steps or stored.get("checkpoint_steps", 0)
        return source, plan, steps
    for path in checkpoints.list_damaged(folder):
        say(f"'{path}' is damaged, so an earlier checkpoint is taken.")
    if "no_number_at_step" in stored and options.learning_rate is None:
        say(
            f"At step {stored['no_number_at_step']} the loss was no number; "
            "--learning-rate with a lower one goes on from before it."
        )
    elif "no_number_at_step" in stored:
        say("Going on with another learning rate, where all weights were numbers.")
    notes = checkpoints.newest(folder)
    say(f"Going on after step {notes['step'] if notes else 0}.")
    if options.checkpoint_steps is None:
        return source, plan, stored.get("checkpoint_steps", 0)
    return source, plan, options.checkpoint_steps


def _print_run(run, data, folder: pathlib.Path) -> None:
    top1, pace = run.evaluation.top1, run.pace
    say(f"Top-1 on {data.counts['test']} test images: {top1:.2%}")
    for warning in run.warnings:
        say(warning)
    say(f"The model of epoch {run.best_epoch} is '{folder / 'model.keras'}'.")
    say(
        f"{pace['images_per_second']:.0f} images a second, {pace['waiting']:.1%} of the "
        f"time waiting for them; peak memory {pace['peak_memory_bytes'] / 1e9:.1f} GB"
    )


def _what_is_kept(folder: pathlib.Path) -> str:
    """What an interrupted training leaves."""
    if not (folder / "run.json").exists():
        return "Nothing was finished, so nothing was kept."
    best = folder / "model.keras"
    found = f"'{best}' is the best model so far; " if best.exists() else ""
    return f"{found}--resume {folder} goes on."


def train_by_plan(
    source: ImageSource,
    plan: TrainingPlan,
    folder: pathlib.Path,
    strategy: tf.distribute.Strategy | None = None,
    **more: Any,
) -> tuple[keras.Model, ImageData, loop.TrainingRun]:
    """Builds and trains; says what, and how much memory that takes."""
    model, data = _build(source, plan, strategy)
    say(
        f"{model.count_params():,} parameters; "
        + ", ".join(f"{count:,} {split}" for split, count in data.counts.items())
        + f" images in {len(data.class_names)} classes."
    )
    needed = rehearsal.estimated_memory(
        config_of(model), model.count_params(), plan.batch_size
    )
    if not tf.config.list_physical_devices("GPU") and (
        short := _shortage(needed, plan.batch_size)
    ):
        # An estimate, so no refusal; a system that runs out kills without a word.
        say(f"This may be killed: {short}")
    if plan.teacher and not more.get("resume"):
        _say_what_teacher_knows(plan.teacher, model, data)
    run = loop.train(
        model,
        data,
        plan.recipe,
        output=folder,
        seed=plan.seed,
        teacher=plan.teacher,
        origin=plan.origin,
        **more,
    )
    return model, data, run


def _build(
    source: ImageSource,
    plan: TrainingPlan,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[keras.Model, ImageData]:
    """Model and data of a plan; says what became of a model that is resized."""
    model = plan.build(strategy)
    config = config_of(model)
    if plan.image_size:
        old, new = config_of(load_model(plan.origin)).grid, config.grid
        if new != old:
            say(
                f"The model of --from is resized: from {old[0]} x {old[1]} patches to "
                f"{new[0]} x {new[1]}, and its positions with them."
            )
    return model, source.load(config, batch_size=plan.batch_size, seed=plan.seed)


def _say_what_teacher_knows(path: pathlib.Path | str, model, data) -> None:
    """Of another range of pixels, or classes in another order, he knows nothing."""
    teacher = load_model(path)
    check_teacher(model, teacher)
    found = loop.evaluate(teacher, data.validation_sample, data.class_names)
    name, count = "The teacher's top-1", len(found.labels)
    say(f"{name} on {count} validation images: {found.top1:.2%}")
    for line in remarks(found, name):
        say(line)


def _dry_run(options) -> int:
    """What a training would be and take."""
    if options.resume:
        stored = read_settings(options.resume)
        check_more_epochs(options.resume, stored, options.epochs)
        source, plan = resumed_plan(options, stored)
    else:
        source, plan = new_plan(options)
    _print_reasons(plan)
    model, data = _build(source, plan)
    teacher = load_model(plan.teacher) if plan.teacher else None
    if teacher:
        check_teacher(model, teacher)
    config, parameters = config_of(model), model.count_params()
    _print_plan(plan, config, parameters)
    needed = rehearsal.estimated_memory(config, parameters, plan.batch_size)
    needed += 4 * teacher.count_params() if teacher else 0
    say(f"Memory of a step of {plan.batch_size} images: about {needed / 1e9:.1f} GB")
    if short := _shortage(needed, plan.batch_size):
        raise ValueError(short)
    found = rehearsal.rehearse(model, data, plan.recipe, teacher)
    say(
        f"A step: {found.step_seconds:.3f} s, {found.images_per_second:.0f} images a "
        f"second; the first, which compiles: {found.compile_seconds:.0f} s; peak memory "
        f"{found.peak_memory_bytes / 1e9:.1f} GB"
    )
    say(f"All {plan.recipe.epochs} epochs: about {_duration(found.seconds)}")
    figures = {"parameters": parameters, "estimated_memory_bytes": needed}
    write_json(options.json, figures | dataclasses.asdict(found))
    return 0


def _print_reasons(plan: TrainingPlan) -> None:
    """One paragraph, where the number of images decided something."""
    if plan.reasons:
        for line in textwrap.wrap(" ".join(plan.reasons), 88):
            say(line)


def _print_plan(plan: TrainingPlan, config, parameters: int) -> None:
    first, last = config.token_counts[0], config.token_counts[-1]
    tokens = first if first == last else f"{first} and at last {last}"
    say(
        f"{parameters:,} parameters: {config.depth} blocks of width {config.width}, "
        f"{config.num_heads} heads, {tokens} tokens from "
        f"{config.image_size[0]} x {config.image_size[1]} pixels in {plan.precision}"
    )
    # Of the batches to come, not of those that the recipe was made for.
    rate = plan.recipe.peak_rate(plan.batch_size)
    used = {"batch_size": plan.batch_size, "learning_rate": rate}
    for name, value in (dataclasses.asdict(plan.recipe) | used).items():
        say(f"  {name}: {value}")


def _shortage(needed: int, batch_size: int) -> str | None:
    """What to say if a step needs more memory than there is."""
    free = rehearsal.available_memory()
    if free is None or needed <= free:
        return None
    return (
        f"a batch of {batch_size} needs about {needed / 1e9:.1f} GB and "
        f"{free / 1e9:.1f} GB are free; take a smaller --batch-size, and "
        "--accumulation for the rest."
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
