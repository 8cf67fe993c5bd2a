"""The command `benchmark`: every recipe of a model, side by side."""

import argparse

from keras_vit_device.files import check_writable, write_bytes, write_json
from keras_vit_device.terminal import say
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report import page

from keras_vit.config import check_choice
from keras_vit_cli.data import AskedData, data_for
from keras_vit_cli.inputs import given_ends, open_keras
from keras_vit_cli.printing import print_reach, print_table

# Where files are tried, by what `--accelerator` says.
ACCELERATORS = {"cpu": ("cpu",), "gpu": ("gpu",), "auto": ("cpu", "gpu")}


def run(options: argparse.Namespace) -> int:
    """Every recipe of a model, side by side."""
    check_writable(options.html, options.json, read=[options.model])
    check_choice("--accelerator", options.accelerator, ACCELERATORS)
    places = ACCELERATORS[options.accelerator]
    classifier = open_keras(options.model, **given_ends(options))
    data = data_for(classifier, options.model, AskedData.of(options), options.split)
    exporter = Exporter(classifier, data)
    exporter.check_accelerators(places)
    for name, recipe in QUANTIZATION_RECIPES.items():
        say(f"{name}: {recipe.summary}")
    made, refused = exporter.convert_all()
    for name, reason in refused.items():
        say(f"Left out: {name}. {reason}")
    _, reports = exporter.check(made, places)
    print_table(reports)
    print_reach(reports)
    if options.html:
        write_bytes(options.html, page.html(reports, options.model.name).encode())
    write_json(options.json, {name: it.as_dict() for name, it in reports.items()})
    return 0
