"""The command `features`: images -> arrays of what a model sees in them."""

import argparse
import sys

import numpy as np
from keras_vit_device.files import check_writable, whole_file, write_json
from keras_vit_device.terminal import one_line, say
from tqdm import tqdm

from keras_vit.features import feature_model
from keras_vit_cli.inputs import image_paths, open_keras

BATCH = 32


def run(options: argparse.Namespace) -> int:
    """Images -> an `.npz` of their features and paths."""

    if options.output.suffix != ".npz":
        raise ValueError(f"--output must end in .npz. Received: '{options.output}'")
    check_writable(options.output, options.json, read=[options.model, *options.images])
    classifier = open_keras(options.model)
    paths, left_out = image_paths(options.images)
    for line in left_out.lines:
        say(line, file=sys.stderr)

    model = feature_model(classifier.model, options.kind)
    found, read = [], []
    for start in tqdm(range(0, len(paths), BATCH), disable=len(paths) <= BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            try:
                images.append(classifier.read(path))
            except OSError as error:
                say(one_line(error), file=sys.stderr)
                continue
            read.append(str(path))
        if images:
            found.append(np.asarray(model(np.stack(images), training=False)))
    if not found:
        raise ValueError("No image could be read.")
    arrays = np.concatenate(found)
    with whole_file(options.output) as partial, open(partial, "wb") as file:
        np.savez(file, features=arrays, paths=np.array(read))
    say(f"{len(read)} images, {arrays.shape[1]} features: '{options.output}'")
    write_json(options.json, {"images": len(read), "features": arrays.shape[1]})
    return 2 if len(read) < len(paths) or left_out.images else 0
