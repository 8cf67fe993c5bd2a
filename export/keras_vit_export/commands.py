"""What each command does, once its options are parsed.

Functions import what they need: `classify` on a `.tflite` must not wait for
TensorFlow.
"""

import argparse
import dataclasses
import math
import pathlib
import sys

from keras_vit_device.files import (
    as_json,
    check_writable,
    new_folder,
    write_bytes,
    write_json,
    write_together,
)
from keras_vit_device.terminal import quiet

from keras_vit_export.arguments import (
    data_for,
    given_ends,
    image_paths,
    next_free,
    open_keras,
    open_model,
)
from keras_vit_export.plans import demo_plan
from keras_vit_export.training import trained

# Where files are tried, by what `--accelerator` says.
ACCELERATORS = {"cpu": ("cpu",), "gpu": ("gpu",), "auto": ("cpu", "gpu")}


def demo(options: argparse.Namespace) -> int:
    """Bundled digits -> run folder with a model, its exports and their report."""
    with quiet():
        from keras_vit.data import sources as data_sets
    check_writable(options.json)
    folder = new_folder(options.output or next_free(pathlib.Path("runs/demo")))
    plan = demo_plan(data_sets.find_source("digits"), options.epochs, options.seed)
    print(f"Training on 8 x 8 digits for {options.epochs} epochs.")
    model, data, run = trained(plan, folder)
    print(f"Top-1 on {data.counts['test']} test images: {run.evaluation.top1:.2%}")
    print("Exporting and measuring.")
    recipes = ["float32", "float16", "dynamic_int8"]
    files, reports = _export(model, recipes, data)
    for name, content in files.items():
        write_bytes(folder / f"{name}.tflite", content)
    figures = {name: report.as_dict() for name, report in reports.items()}
    write_json(folder / "report.json", figures)
    write_json(options.json, figures)
    _print_table(reports)
    _print_reach(reports)
    print(f"In '{folder}':")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Top-1, top-5, accuracy by class and a confusion picture of test images."""
    picture = options.confusion or options.model.with_name(
        f"{options.model.stem}-confusion.png"
    )
    check_writable(picture, options.json, read=[options.model])
    classifier = open_model(options.model, **given_ends(options))
    data = data_for(classifier, options, whole=True)
    with quiet():
        from keras_vit.chance import remarks
        from keras_vit.pictures import draw_confusion
        from keras_vit_export.doubts import settle
        from keras_vit_export.report import measure

        granted = settle(classifier, data.validation)
        result = measure.evaluate(classifier, data.test)
    for line in (*granted, *remarks(result)):
        print(line)
    images = f"{len(result.labels)} {data.reported} images"
    if data.reported == "all":
        images = f"all {len(result.labels)} images"
    print(f"Top-1 on {images}: {result.top1:.2%}")
    if result.top5 is not None:
        print(f"Top-5: {result.top5:.2%}")
    longest = max(len(name) for name in result.class_names)
    for name, top1 in result.by_class.items():
        print(f"  {name:{longest}}  " + ("-" if top1 is None else f"{top1:.1%}"))
    draw_confusion(result, picture)
    print(f"Confusion: '{picture}'")
    write_json(options.json, {**result.as_dict(), "split": data.reported})
    return 0


def export(options: argparse.Namespace) -> int:
    """A `.keras` -> a `.tflite` and its reports, or nothing if it lost too much."""
    _check_export(options)
    with quiet():
        from keras_vit_export import budget
        from keras_vit_export.exporter import Exporter
        from keras_vit_export.report import page
    classifier = open_keras(options.model, **given_ends(options))
    if options.rgb:
        classifier = classifier.with_rgb_input()
    data = data_for(classifier, options) if options.dataset else None
    with quiet():
        exporter = Exporter(classifier, data, options.rewrites, options.compat)
    made, trials = _made(exporter, options)
    if trials:
        print("\n" + budget.table(trials) + "\n")
    if made is None:
        print(f"Not written: nothing keeps to --max-drop {options.max_drop:g}.")
        return 3
    name = made.recipe.name
    with quiet():
        files, reports = exporter.check({name: made})
    _print_table(reports)
    _print_reach(reports)
    _print_details(reports[name])
    figures = reports[name].as_dict() | {
        "keras_top1": reports["keras"].top1,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    shown = page.html(reports, f"{options.output.name}, from {options.model.name}")
    write_together(
        {
            options.output: files[name],
            _beside(options.output, "html"): shown.encode(),
            _beside(options.output, "json"): as_json(figures),
        }
    )
    write_json(options.json, figures)
    print(f"Written: '{options.output}' and its report, ending in .html and .json")
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Every recipe of a model, side by side."""
    check_writable(options.html, options.json, read=[options.model])
    with quiet():
        from keras_vit.config import check_choice
        from keras_vit_export.exporter import Exporter
        from keras_vit_export.quantization.recipes import RECIPES
        from keras_vit_export.report import page
    check_choice("--accelerator", options.accelerator, ACCELERATORS)
    places = ACCELERATORS[options.accelerator]
    classifier = open_keras(options.model, **given_ends(options))
    data = data_for(classifier, options)
    with quiet():
        exporter = Exporter(classifier, data)
        exporter.check_accelerators(places)
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.summary}")
    with quiet():
        made, refused = exporter.convert_all()
    for name, reason in refused.items():
        print(f"Left out: {name}. {reason}")
    with quiet():
        _, reports = exporter.check(made, places)
    _print_table(reports)
    _print_reach(reports)
    if options.html:
        write_bytes(options.html, page.html(reports, options.model.name).encode())
    write_json(options.json, {name: it.as_dict() for name, it in reports.items()})
    return 0


def classify(options: argparse.Namespace) -> int:
    """The most probable classes of each image; unreadable ones are named."""
    if options.output:
        return _classify_folder(options)
    if options.workers is not None:
        raise ValueError("--workers needs --output.")
    from keras_vit_device.classifier import most_probable

    check_writable(options.json, read=[options.model, *options.images])
    classifier = open_model(options.model, **given_ends(options))
    if classifier.doubt:
        print(classifier.doubt, file=sys.stderr)
    results, unreadable = {}, 0
    paths, left_out = image_paths(options.images)
    for path in paths:
        try:
            image = classifier.read(path)
        except OSError as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            unreadable += 1
            continue
        probabilities = classifier.probabilities([image])[0]
        best = most_probable(classifier.class_names, probabilities, 3)
        results[str(path)] = {name: round(part, 4) for name, part in best}
        shown = ", ".join(
            f"{name} {part:.1%}" for name, part in results[str(path)].items()
        )
        print(f"{path}: {shown}")
    for line in left_out.lines:
        print(line, file=sys.stderr)
    write_json(options.json, results)
    return 2 if unreadable or left_out.images else 0


def _classify_folder(options: argparse.Namespace) -> int:
    """`classify` with `--output`: one CSV."""
    from keras_vit_device import bulk

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
        print(f"keras-vit: {' '.join(str(error).split())}", file=sys.stderr)
        return 4
    print(f"{summary.images:,} images in '{options.output}'")
    if summary.unreadable:
        count, few = len(summary.unreadable), summary.unreadable[:5]
        print(
            f"{count:,} unreadable, see the column error: {', '.join(few)}"
            + (f" and {count - len(few):,} more" if count > len(few) else "")
        )
    for line in summary.left_out:
        print(line)
    for line in summary.remarks:
        print(line, file=sys.stderr)
    write_json(
        options.json,
        {"images": summary.images, "unreadable": len(summary.unreadable)},
    )
    return 0


def _export(model, recipes, images):
    with quiet():
        from keras_vit_export.exporter import export_all

        return export_all(model, recipes, images)


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
    with quiet():
        from keras_vit.config import check_choice
        from keras_vit_export.quantization.recipes import RECIPES
    check_choice("--recipe", options.recipe, [*RECIPES, "auto"])
    if options.max_drop is not None and math.isnan(options.max_drop):
        raise ValueError("--max-drop must be a number of percentage points.")
    if options.dataset is not None:
        return
    if options.max_drop is not None:
        raise ValueError("--max-drop needs --dataset, to measure top-1 on.")
    if options.recipe == "auto":
        raise ValueError("--recipe auto needs --dataset, to measure top-1 on.")
    if RECIPES[options.recipe].calibrated:
        raise ValueError(
            f"--recipe {options.recipe} needs --dataset, to measure the ranges of "
            "activations on."
        )


def _made(exporter, options):
    """The file to write, or `None`, and what was tried."""
    from keras_vit_export import budget

    with quiet():
        if options.recipe == "auto":
            if options.max_drop is None:
                options.max_drop = budget.DEFAULT_MAX_DROP
            return budget.fastest(exporter, options.max_drop)
        if options.max_drop is not None:
            return budget.within(exporter, options.recipe, options.max_drop)
        return exporter.convert(options.recipe), []


def _print_details(report) -> None:
    from keras_vit_export.report.wording import details

    print(details(report))


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(f"{path.name}.{suffix}")


def _print_reach(reports) -> None:
    from keras_vit_export.report.wording import table

    files = {name: it.accelerators for name, it in reports.items() if name != "keras"}
    print(table(files) + "\n")


def _print_table(reports) -> None:
    from keras_vit_export.report.measure import table

    print("\n" + table(reports) + "\n")
