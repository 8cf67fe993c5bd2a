"""The command `export`: a `.keras` -> a checked `.tflite` and its reports."""

import argparse
import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_vit_device.files import as_json, check_writable, write_json, write_together
from keras_vit_device.terminal import say
from keras_vit_export import budget
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report import page
from keras_vit_export.report.measure import Report
from keras_vit_export.report.wording import details

from keras_vit.config import check_choice
from keras_vit_cli.data import AskedData, data_for
from keras_vit_cli.inputs import given_ends, open_keras
from keras_vit_cli.printing import print_reach, print_table, say_table


def run(options: argparse.Namespace) -> int:
    """A `.keras` -> a `.tflite` and its reports, or nothing if it lost too much."""
    _check_export(options)
    classifier = open_keras(options.model, **given_ends(options))
    if options.rgb:
        classifier = classifier.with_rgb_input()
    data = None
    if options.dataset:
        asked = AskedData.of(options)
        data = data_for(classifier, options.model, asked, options.split)
    exporter = Exporter(classifier, data, options.rewrites, options.compat)
    max_drop = options.max_drop
    if max_drop is None and options.recipe == "auto":
        max_drop = budget.DEFAULT_MAX_DROP
    made, trials = _make(exporter, options.recipe, max_drop)
    if trials:
        say_table(budget.table(trials))
    if made is None:
        say(f"Not written: nothing keeps to --max-drop {max_drop:g}.")
        return 3
    name = made.recipe.name
    files, reports = exporter.check({name: made})
    print_table(reports)
    print_reach(reports)
    for line in details(reports[name]).splitlines():
        say(line)
    figures = reports[name].as_dict() | {
        "keras_top1": reports["keras"].top1,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    write_with_reports(options.output, files[name], reports, figures, options.model)
    write_json(options.json, figures)
    out = options.output
    say(f"Written: '{out}', and its report: '{out}.html', '{out}.json'")
    return 0


def write_with_reports(
    path: pathlib.Path,
    content: bytes,
    reports: Mapping[str, Report],
    figures: dict[str, Any],
    model: pathlib.Path,
) -> None:
    """A file and, beside it, its page and its figures: all of them or none."""
    shown = page.html(reports, f"{path.name}, from {model.name}")
    write_together(
        {
            path: content,
            _beside(path, "html"): shown.encode(),
            _beside(path, "json"): as_json(figures),
        }
    )


def _check_export(options) -> None:
    if options.output.suffix != ".tflite":
        raise ValueError(f"--output must end in .tflite. Received: '{options.output}'")
    check_writable(
        options.output,
        _beside(options.output, "html"),
        _beside(options.output, "json"),
        options.json,
        read=[options.model],
    )
    check_choice("--recipe", options.recipe, [*QUANTIZATION_RECIPES, "auto"])
    if options.max_drop is not None and math.isnan(options.max_drop):
        raise ValueError("--max-drop must be a number of percentage points.")
    if options.dataset is not None:
        return
    if options.max_drop is not None:
        raise ValueError("--max-drop needs --dataset, to measure top-1 on.")
    if options.recipe == "auto":
        raise ValueError("--recipe auto needs --dataset, to measure top-1 on.")
    if purpose := QUANTIZATION_RECIPES[options.recipe].images_for:
        raise ValueError(f"--recipe {options.recipe} needs --dataset, {purpose}.")


def _make(exporter: Exporter, recipe: str, max_drop: float | None):
    """The file to write, or `None`, and what was tried."""
    if recipe == "auto":
        return budget.fastest(exporter, max_drop, say)
    if max_drop is not None:
        return budget.within(exporter, recipe, max_drop, say)
    return exporter.convert(recipe), []


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(f"{path.name}.{suffix}")
