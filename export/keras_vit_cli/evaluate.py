"""The command `evaluate`: top-1 of a model on test images."""

import argparse

from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say
from keras_vit_export.doubts import settle
from keras_vit_export.report import measure

from keras_vit.chance import remarks
from keras_vit.pictures import draw_confusion
from keras_vit_cli.data import AskedData, data_for
from keras_vit_cli.inputs import given_ends, open_model


def run(options: argparse.Namespace) -> int:
    """Top-1, top-5, accuracy by class and a confusion picture of test images."""
    picture = options.confusion or options.model.with_name(
        f"{options.model.stem}-confusion.png"
    )
    check_writable(picture, options.json, read=[options.model])
    classifier = open_model(options.model, **given_ends(options))
    data = data_for(
        classifier, options.model, AskedData.of(options), options.split, whole=True
    )

    granted = settle(classifier, data.validation)
    result = measure.evaluate(classifier, data.test)
    for line in (*granted, *remarks(result)):
        say(line)
    images = f"{len(result.labels)} {data.reported} images"
    if data.reported == "all":
        images = f"all {len(result.labels)} images"
    say(f"Top-1 on {images}: {result.top1:.2%}")
    if result.top5 is not None:
        say(f"Top-5: {result.top5:.2%}")
    longest = max(len(name) for name in result.class_names)
    for name, top1 in result.by_class.items():
        say(f"  {name:{longest}}  " + ("-" if top1 is None else f"{top1:.1%}"))
    draw_confusion(result, picture)
    say(f"Confusion: '{picture}'")
    write_json(options.json, {**result.as_dict(), "split": data.reported})
    return 0
