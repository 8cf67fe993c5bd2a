"""The command `demo`: bundled digits -> a run folder with its exports and their report."""

import argparse
import pathlib

from keras_vit_device.files import check_writable, new_folder, write_bytes, write_json
from keras_vit_export.exporter import export_all

from keras_vit.data import find_source
from keras_vit_cli.arguments import next_free
from keras_vit_cli.plans import demo_plan
from keras_vit_cli.printing import print_reach, print_table
from keras_vit_cli.train import trained


def run(options: argparse.Namespace) -> int:
    """Bundled digits -> run folder with a model, its exports and their report."""
    check_writable(options.json)
    folder = new_folder(options.output or next_free(pathlib.Path("runs/demo")))
    plan = demo_plan(find_source("digits"), options.epochs, options.seed)
    print(f"Training on 8 x 8 digits for {options.epochs} epochs.")
    model, data, run = trained(plan, folder)
    print(f"Top-1 on {data.counts['test']} test images: {run.evaluation.top1:.2%}")
    print("Exporting and measuring.")
    recipes = ["float32", "float16", "dynamic_int8"]
    files, reports = export_all(model, recipes, data)
    for name, content in files.items():
        write_bytes(folder / f"{name}.tflite", content)
    figures = {name: report.as_dict() for name, report in reports.items()}
    write_json(folder / "report.json", figures)
    write_json(options.json, figures)
    print_table(reports)
    print_reach(reports)
    print(f"In '{folder}':")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")
    return 0
