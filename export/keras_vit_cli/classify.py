"""The command `classify`: what images show. No TensorFlow for a `.tflite`."""

import argparse
import sys

from keras_vit_device import bulk
from keras_vit_device.classifier import most_probable
from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import one_line, say

from keras_vit_cli.inputs import given_ends, image_paths, open_model


def run(options: argparse.Namespace) -> int:
    """The most probable classes of each image; unreadable ones are named."""
    if options.output:
        return _classify_folder(options)
    if options.workers is not None:
        raise ValueError("--workers needs --output.")

    check_writable(options.json, read=[options.model, *options.images])
    classifier = open_model(options.model, **given_ends(options))
    if classifier.doubt:
        say(classifier.doubt, file=sys.stderr)
    results, unreadable = {}, 0
    paths, left_out = image_paths(options.images)
    for path in paths:
        try:
            image = classifier.read(path)
        except OSError as error:
            say(one_line(error), file=sys.stderr)
            unreadable += 1
            continue
        probabilities = classifier.probabilities([image])[0]
        best = most_probable(classifier.class_names, probabilities, 3)
        results[str(path)] = {name: round(part, 4) for name, part in best}
        shown = ", ".join(
            f"{name} {part:.1%}" for name, part in results[str(path)].items()
        )
        say(f"{path}: {shown}")
    for line in left_out.lines:
        say(line, file=sys.stderr)
    write_json(options.json, results)
    return 2 if unreadable or left_out.images else 0


def _classify_folder(options: argparse.Namespace) -> int:
    """`classify` with `--output`: one CSV."""

    if len(options.images) > 1:
        raise ValueError(
            "--output takes one folder, which names in the file are relative to. "
            f"Received: {len(options.images)} paths"
        )
    check_writable(options.output, options.json, read=[options.model])
    folder = options.images[0]
    try:
        summary = bulk.classify_folder(
            options.model,
            folder,
            options.output,
            options.workers,
            **given_ends(options),
        )
    except bulk.WorkerDiedError as error:
        say(f"keras-vit: {one_line(error)}", file=sys.stderr)
        return 4
    say(f"{summary.images:,} images in '{options.output}'")
    if summary.unreadable:
        count, few = len(summary.unreadable), summary.unreadable[:5]
        say(
            f"{count:,} unreadable, see the column error: {', '.join(few)}"
            + (f" and {count - len(few):,} more" if count > len(few) else "")
        )
    for line in summary.left_out:
        say(line)
    for line in summary.remarks:
        say(line, file=sys.stderr)
    write_json(
        options.json,
        {"images": summary.images, "unreadable": len(summary.unreadable)},
    )
    return 0
