"""The command `speedup`: the fastest file of a model that keeps to a budget."""

import argparse
import dataclasses
import logging
import re
from collections.abc import Callable

from keras_vit_device.classifier import Classifier
from keras_vit_device.files import check_writable, new_folder, write_json
from keras_vit_device.terminal import say
from keras_vit_export.exporter import Exporter
from keras_vit_export.report.measure import points_lost, predict
from keras_vit_export.speedup.drawing import draw_front
from keras_vit_export.speedup.search import Search
from keras_vit_export.speedup.trials import Trial, table

from keras_vit.files import save_model
from keras_vit_cli.data import AskedData, source_for
from keras_vit_cli.export import write_with_reports
from keras_vit_cli.inputs import open_keras
from keras_vit_cli.printing import print_reach, print_table, say_table


def run(options: argparse.Namespace) -> int:
    """A `.keras` -> a folder with the front and the file that was taken, or no file."""
    check_writable(options.json, read=[options.model])
    # It takes many models for one that is traced again and again, and warns.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    reaches = _target(options.target)
    if not options.go_on:
        new_folder(options.output)
    classifier = open_keras(options.model)
    source = source_for(classifier, options.model, AskedData.of(options))
    search = Search(
        classifier,
        source,
        options.output,
        origin=str(options.model),
        max_drop=options.max_drop,
        seed=options.seed,
        epochs=options.epochs,
        listener=say,
    )
    try:
        search.run(options.train)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "What was tried is kept; the same with --continue goes on."
        ) from None
    chosen = search.choose(reaches)
    say_table(table(search.trials, options.max_drop))
    front = options.output / "front.png"
    draw_front(search.trials, chosen, options.max_drop, front)
    say(f"The front: '{front}'")
    _say_what_is_left(search, options)
    if chosen is None:
        wanted = f" reaches --target {options.target} and" if options.target else ""
        say(f"Not written: nothing{wanted} keeps to --max-drop {options.max_drop:g}.")
        return 3
    figures = _write(search, chosen, classifier, options)
    write_json(options.json, figures)
    return 0


def _target(text: str | None) -> Callable[[Trial], bool] | None:
    """Whether a trial is as fast as `"2x"`, or as so many milliseconds."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*)(x|ms)?", text)
    if found is None or float(found[1]) == 0:
        raise ValueError(
            "--target must be how many times as fast, such as 2x, or milliseconds. "
            f"Received: {text!r}"
        )
    wanted = float(found[1])
    if found[2] == "x":
        return lambda trial: trial.ratio >= wanted
    return lambda trial: trial.latency_ms <= wanted


def _say_what_is_left(search: Search, options) -> None:
    """What training would be worth, where nothing was trained."""
    missed = [it for it in search.missed() if not it.epochs]
    if options.train or not missed:
        return
    epochs = search.plan.recipe.epochs
    say(
        f"Faster than all that hold, and too inaccurate as they are: {len(missed)}, up to "
        f"{missed[0].ratio:.1f} times as fast as the model. Training wins much of that "
        "back, of pooling and pruning most: --train gives each kind's slowest "
        f"{epochs} epochs, and goes on to faster ones while they hold."
    )


def _write(search: Search, chosen: Trial, original, options) -> dict:
    """The file that was taken, checked on test images, and its reports."""
    classifier = search.classifier_of(chosen)
    data = search.data_of(classifier.model)
    exporter = Exporter(classifier, data, "required")
    made = exporter.convert(chosen.recipe)
    files, reports = exporter.check({chosen.recipe: made})
    print_table(reports)
    print_reach(reports)
    lost, interval = _lost_on_test(search, original, exporter, made)
    say(
        f"Taken: {chosen.variant}, {chosen.ratio:.2f} times as fast as {chosen.recipe} of "
        f"the model as it came; on {data.counts['test']} test images it loses {lost:.2f} "
        f"± {interval:.2f} points of top-1."
    )
    report = reports[chosen.recipe]
    figures = report.as_dict() | {
        "points_lost": lost,
        "interval": interval,
        "chosen": dataclasses.asdict(chosen),
        "trials": [dataclasses.asdict(it) for it in search.trials],
    }
    folder = options.output
    save_model(classifier.model, folder / "model.keras")
    path = folder / "model.tflite"
    write_with_reports(path, files[chosen.recipe], reports, figures, options.model)
    say(f"Written: '{path}', its report, and 'model.keras'")
    return figures


def _lost_on_test(search: Search, original, exporter, made) -> tuple[float, float]:
    """Points of top-1 lost to the model as it came, and half their interval."""
    labels, before = predict({"it": original}, search.data_of(original.model).test)
    file = Classifier.of_flatbuffer(made.content)
    _, after = predict({"it": file}, exporter.splits.report)
    was, now = (rows["it"].argmax(axis=1) == labels for rows in (before, after))
    return points_lost(was, now)
