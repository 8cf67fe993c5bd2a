"""Answers of a model's files on the GPU against those of the CPU, recipe by recipe.

    python benchmarks/gpu.py runs/photos/model.keras --dataset photos/ --images 200

Prints a Markdown table: how each recipe runs on LiteRT's GPU, the part of the test images
with the CPU's class, the largest total variation, and what the file's self-test says. On
a GPU in software, such as `make test-devices` makes, a large model takes seconds an image.
"""

import argparse
import itertools
import pathlib

import numpy as np
from keras_vit_export import Classifier
from keras_vit_export.exporter import Exporter
from keras_vit_export.gpu.reach import reach
from keras_vit_export.report.wording import table

import keras_vit
from keras_vit.data import find_source
from keras_vit.files import load_model

PATIENCE = 3600.0  # seconds for one file


def main() -> None:
    options = parse_options()
    model = load_model(options.model)
    source = find_source(options.dataset, data_dir=options.data_dir)
    data = source.load(keras_vit.config_of(model))
    images = itertools.chain.from_iterable(x for x, _ in data.test.as_numpy_iterator())
    some = np.stack(list(itertools.islice(images, options.images)))
    exporter = Exporter(model, data)
    made, refused = exporter.convert_all()
    for name, reason in refused.items():
        print(f"Left out: {name}. {reason}")
    files, _ = exporter.check(made, ["cpu"])
    found = {}
    for name, content in files.items():
        found[name] = reach(Classifier(content), some, ["gpu"], PATIENCE)
        it = found[name]["gpu"]
        if it.distance is not None:
            print(f"{name}: {it.distance:.2g} apart at most, {it.images} images")
    print(table(found))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
