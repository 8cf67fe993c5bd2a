"""What each command does, once its options are parsed.

Functions import what they need: `classify` on a `.tflite` must not wait for
TensorFlow.
"""

import argparse
import math
import pathlib
import sys
from typing import Any

from keras_vit_export.terminal import quiet

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def demo(options: argparse.Namespace) -> int:
    """Bundled digits -> run folder with a model, its exports and their report."""
    with quiet():
        import keras_vit
        from keras_vit.data import find_source
        from keras_vit.runs import new_folder
    folder = new_folder(options.output or _next_free(pathlib.Path("runs/demo")))
    # Images this small, 19 steps an epoch, bear twice the default rate.
    recipe = keras_vit.TrainingRecipe(epochs=options.epochs, learning_rate=6e-3)
    print(f"Training on 8 x 8 digits for {recipe.epochs} epochs.")
    source = find_source("digits")
    model, data, run = _train(
        source, _new_config(source), recipe, options.seed, 64, folder
    )
    print(f"Top-1 on {data.counts['test']} test images: {run.evaluation.top1:.2%}")
    print("Exporting and measuring.")
    recipes = ["float32", "float16", "dynamic_int8"]
    files, reports = _export(model, recipes, data.test)
    for name, content in files.items():
        _write_bytes(folder / f"{name}.tflite", content)
    figures = {name: report.as_dict() for name, report in reports.items()}
    _write_json(folder / "report.json", figures)
    _write_json(options.json, figures)
    _print_table(reports)
    print(f"\nIn '{folder}':")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")
    return 0


def train(options: argparse.Namespace) -> int:
    """A data set -> run folder with the best model and its pictures."""
    with quiet():
        import keras_vit
        from keras_vit.runs import new_folder
    folder = new_folder(options.output)
    changed = {"flip": options.flip}
    if options.learning_rate is not None:
        changed["learning_rate"] = options.learning_rate
    recipe = keras_vit.TrainingRecipe(epochs=options.epochs, **changed)
    source = _find_source(options)
    config = _new_config(source, options.variant, options.image_size, options.resize)
    try:
        _, data, run = _train(
            source, config, recipe, options.seed, options.batch_size, folder
        )
    except KeyboardInterrupt:
        kept = folder / "model.keras"
        raise KeyboardInterrupt(
            f"'{kept}' is the best model so far."
            if kept.exists()
            else "No epoch was finished, so nothing was kept."
        ) from None
    top1 = run.evaluation.top1
    print(f"Top-1 on {data.counts['test']} test images: {top1:.2%}")
    print(f"The model of epoch {run.best_epoch} is '{folder / 'model.keras'}'.")
    _write_json(options.json, {"top1": top1, "best_epoch": run.best_epoch})
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Top-1, top-5, accuracy by class and a confusion picture of test images."""
    classifier = _open(options.model)
    data = _data_for(classifier, options)
    with quiet():
        from keras_vit.pictures import draw_confusion
        from keras_vit_export import report
    result = report.evaluate(classifier, data.test)
    print(f"Top-1 on {len(result.labels)} test images: {result.top1:.2%}")
    if result.top5 is not None:
        print(f"Top-5: {result.top5:.2%}")
    longest = max(len(name) for name in result.class_names)
    for name, top1 in result.by_class.items():
        print(f"  {name:{longest}}  " + ("-" if top1 is None else f"{top1:.1%}"))
    picture = options.confusion or options.model.with_name(
        f"{options.model.stem}-confusion.png"
    )
    draw_confusion(result, picture)
    print(f"Confusion: '{picture}'")
    _write_json(options.json, result.as_dict())
    return 0


def export(options: argparse.Namespace) -> int:
    """A `.keras` -> a `.tflite` and its report, or nothing if it lost too much."""
    if options.output.suffix != ".tflite":
        raise ValueError(f"--output must end in .tflite. Received: '{options.output}'")
    if options.model.suffix != ".keras":
        raise ValueError(f"export takes a .keras file. Received: '{options.model}'")
    if options.max_drop is not None and math.isnan(options.max_drop):
        raise ValueError("--max-drop must be a number of percentage points.")
    if options.max_drop is not None and options.dataset is None:
        raise ValueError("--max-drop needs --dataset, to measure top-1 on.")
    with quiet():
        from keras_vit.config import check_choice
        from keras_vit_export.recipes import RECIPES
    check_choice("--recipe", options.recipe, RECIPES)
    classifier = _open(options.model)
    images = _data_for(classifier, options).test if options.dataset else None
    files, reports = _export(classifier.model, [options.recipe], images)
    _print_table(reports)
    report = reports[options.recipe]
    print(f"Largest difference from Keras' probabilities: {report.max_difference:.1e}")
    if images is None:
        print("Top-1 was not measured: no --dataset was given.")
    elif options.max_drop is not None:
        drop = 100 * (reports["keras"].top1 - report.top1)
        if round(drop, 6) > options.max_drop:
            print(
                f"Not written: top-1 falls by {drop:.2f} points, more than "
                f"--max-drop {options.max_drop:g}."
            )
            return 1
    figures = report.as_dict() | {"keras_top1": reports["keras"].top1}
    _write_bytes(options.output, files[options.recipe])
    _write_json(options.output.with_name(f"{options.output.name}.json"), figures)
    _write_json(options.json, figures)
    print(f"Written: '{options.output}'")
    return 0


def classify(options: argparse.Namespace) -> int:
    """The most probable classes of each image; unreadable ones are named."""
    import numpy as np

    classifier = _open(options.model)
    results, unreadable = {}, 0
    for path in _image_paths(options.images):
        try:
            image = classifier.read(path)
        except OSError as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            unreadable += 1
            continue
        probabilities = classifier.probabilities([image])[0]
        best = np.argsort(-probabilities, kind="stable")[:3]
        results[str(path)] = {
            classifier.class_names[i]: round(float(probabilities[i]), 4) for i in best
        }
        shown = ", ".join(
            f"{name} {part:.1%}" for name, part in results[str(path)].items()
        )
        print(f"{path}: {shown}")
    _write_json(options.json, results)
    return 2 if unreadable else 0


def _train(source, config, recipe, seed, batch_size, folder):
    """Builds and trains; the seed covers the first weights too."""
    import keras

    import keras_vit

    keras.utils.set_random_seed(seed)
    data = source.load(config, batch_size=batch_size, seed=seed)
    model = keras_vit.build_vit(config)
    print(
        f"{model.count_params():,} parameters; "
        + ", ".join(f"{count:,} {split}" for split, count in data.counts.items())
        + f" images in {len(data.class_names)} classes."
    )
    with quiet():
        run = keras_vit.train(model, data, recipe, output=folder, seed=seed)
    return model, data, run


def _find_source(options):
    with quiet():
        from keras_vit.data import find_source
    source = find_source(
        options.dataset, data_dir=options.data_dir, broken=options.broken
    )
    if source.skipped:
        print(f"{len(source.skipped)} unreadable files are left out:")
        for path in source.skipped:
            print(f"  {path}")
    return source


def _new_config(source, variant=None, image_size=None, resize="stretch"):
    """A configuration for new images; sizes that were not given follow from them."""
    from keras_vit import ViTConfig

    height, width, channels = source.image_shape or (224, 224, 3)
    if max(height, width) > 64:
        height, width = 224, 224
    height, width = image_size or (height, width)
    side = max(height, width)
    variant = variant or (
        "nano/2" if side <= 16 else "nano/4" if side <= 64 else "Ti/16"
    )
    config = {
        "num_classes": len(source.class_names),
        "class_names": source.class_names,
        "channels": channels,
        "resize": resize,
    }
    if image_size is None:
        patch = variant.partition("/")[2]
        # Sizes of the user's own are taken as they are; ours are made to fit.
        patch = int(patch) if patch.isdecimal() and int(patch) else 1
        height, width = (
            math.ceil(length / patch) * patch for length in (height, width)
        )
    return ViTConfig.from_variant(variant, image_size=(height, width), **config)


def _open(path):
    if path.suffix == ".keras":
        with quiet():
            import keras_vit  # noqa: F401 - registers the layers
    from keras_vit_export.classifiers import open_classifier

    with quiet():
        return open_classifier(path)


def _data_for(classifier, options):
    """The data set, fitted to a model; both must mean the same classes."""
    source = _find_source(options)
    from keras_vit.config import Preprocessing

    count = len(classifier.class_names)
    named = classifier.class_names != tuple(f"class {i}" for i in range(count))
    if count != len(source.class_names) or (
        named and classifier.class_names != source.class_names
    ):
        raise ValueError(
            f"'{options.model}' and {options.dataset!r} differ in their classes. "
            f"Received: {_few(classifier.class_names)} and {_few(source.class_names)}"
        )
    return source.load(Preprocessing(**classifier.preprocessing))


def _few(names) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def _export(model, recipes, images):
    with quiet():
        from keras_vit_export.convert import check, convert_all

        converted = convert_all(model, recipes)
    return check(*converted, images)


def _image_paths(given: list[pathlib.Path]) -> list[pathlib.Path]:
    """Files as given, and all image files in folders, sorted."""
    paths = []
    for path in given:
        if not path.exists():
            raise ValueError(f"There is no file or folder '{path}'.")
        if path.is_dir():
            found = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES
                and not any(p.startswith(".") for p in file.relative_to(path).parts)
            ]
            if not found:
                raise ValueError(f"There is no image in folder '{path}'.")
            paths += found
        else:
            paths.append(path)
    return paths


def _next_free(path: pathlib.Path) -> pathlib.Path:
    number = 1
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def _print_table(reports) -> None:
    from keras_vit_export.report import table

    print("\n" + table(reports) + "\n")


def _write_bytes(path: pathlib.Path, content: bytes) -> None:
    from keras_vit.files import whole_file

    with whole_file(path) as partial:
        partial.write_bytes(content)


def _write_json(path: pathlib.Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    from keras_vit.files import write_json

    write_json(path, content)
