"""The command `demo`: bundled digits -> a run folder with its exports and their report."""

import argparse
import dataclasses
import pathlib

from keras_vit_device.files import check_writable, new_folder, write_bytes, write_json
from keras_vit_device.terminal import say
from keras_vit_export.exporter import export_all

from keras_vit.data import ImageSource, find_source
from keras_vit.training.defaults import new_config
from keras_vit.training.plan import TrainingPlan
from keras_vit.training.recipes import TrainingRecipe
from keras_vit_cli.options.export import DEMO_EPOCHS
from keras_vit_cli.printing import print_reach, print_table
from keras_vit_cli.train import train_by_plan


def run(options: argparse.Namespace) -> int:
    """Bundled digits -> run folder with a model, its exports and their report."""
    check_writable(options.json)
    folder = new_folder(options.output or _next_free(pathlib.Path("runs/demo")))
    source = find_source("digits")
    plan = demo_plan(source, options.epochs, options.seed)
    say(f"Training on 8 x 8 digits for {options.epochs} epochs.")
    model, data, run = train_by_plan(source, plan, folder)
    say(f"Top-1 on {data.counts['test']} test images: {run.evaluation.top1:.2%}")
    say("Exporting and measuring.")
    recipes = ["float32", "float16", "dynamic_int8"]
    files, reports = export_all(model, recipes, data)
    for name, content in files.items():
        write_bytes(folder / f"{name}.tflite", content)
    figures = {name: report.as_dict() for name, report in reports.items()}
    write_json(folder / "report.json", figures)
    write_json(options.json, figures)
    print_table(reports)
    print_reach(reports)
    say(f"In '{folder}':")
    for path in sorted(folder.iterdir()):
        say(f"  {path.name}")
    return 0


def demo_plan(
    source: ImageSource, epochs: int = DEMO_EPOCHS, seed: int = 0
) -> TrainingPlan:
    """How the bundled digits, 8 x 8 pixels and not many, are learnt.

    More weight decay, dropped branches and erased rectangles than the defaults were
    chosen on validation images; 19 steps an epoch bear twice the default rate.
    """
    config = new_config(source.class_names, source.image_shape)
    recipe = TrainingRecipe(
        epochs=epochs, learning_rate=6e-3, weight_decay=0.3, random_erasing=0.25
    )
    return TrainingPlan(
        config=dataclasses.replace(config, drop_path=0.1), recipe=recipe, seed=seed
    )


def _next_free(path: pathlib.Path) -> pathlib.Path:
    """`path-1`, or the first such name with a higher number that is free."""
    number = 1
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free
