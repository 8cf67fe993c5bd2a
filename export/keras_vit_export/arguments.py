"""What options name: models, data sets, images, and files to write.

Functions import what they need: `classify` on a `.tflite` must not wait for
TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras_vit_files
from keras_vit_export.terminal import quiet

if TYPE_CHECKING:
    from keras_vit import ImageData, TrainingRecipe, ViTConfig
    from keras_vit.pipeline import ImageSource
    from keras_vit_export.classifiers import AnyClassifier

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def find_source(options: argparse.Namespace) -> "ImageSource":
    """The data set of `--dataset`; files that it leaves out are named."""
    with quiet():
        from keras_vit import data
    source = data.find_source(
        options.dataset, data_dir=options.data_dir, broken=options.broken
    )
    if source.skipped:
        print(f"{len(source.skipped)} unreadable files are left out:")
        for path in source.skipped:
            print(f"  {path}")
    return source


def new_config(
    source: "ImageSource",
    variant: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
) -> "ViTConfig":
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained, on what and how.

    Attributes:
        source: The images.
        config: Sizes of the model; with `origin`, its own count.
        recipe: How to train.
        batch_size: Images a step.
        seed: Of first weights, order, augmentation and dropout.
        precision: Name of Keras' dtype policy.
        origin: A `.keras` file to start from, or `None`.
        teacher: A `.keras` file to learn from, or `None`.
    """

    source: "ImageSource"
    config: "ViTConfig"
    recipe: "TrainingRecipe"
    batch_size: int = 64
    seed: int = 0
    precision: str = "float32"
    origin: str | None = None
    teacher: pathlib.Path | str | None = None


# What a plan has that no option or unfinished run says otherwise.
_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Plan)
    if field.default is not dataclasses.MISSING
}


def new_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options of `train` make."""
    from keras_vit.config import check_choice
    from keras_vit.recipes import DEFAULT_RECIPE, OF_TRAINED_MODELS, RECIPES

    if options.dataset is None:
        raise ValueError("--dataset is needed.")
    name = options.recipe or DEFAULT_RECIPE
    check_choice("--recipe", name, RECIPES)
    if name in OF_TRAINED_MODELS and options.origin is None:
        raise ValueError(f"--recipe {name} needs --from, a trained model.")
    shape = (options.variant, options.image_size, options.resize, options.teacher)
    if options.origin and any(shape):
        raise ValueError(
            "--from brings its own size, so --variant, --image-size, --resize and "
            "--teacher don't go with it."
        )
    source = find_source(options)
    resize = options.resize or "stretch"
    config = new_config(source, options.variant, options.image_size, resize)
    config = _taught(config) if options.teacher else config
    return _plan(options, source, config, RECIPES[name], _DEFAULTS)


def resumed_plan(options: argparse.Namespace, stored: dict[str, Any]) -> Plan:
    """The plan of a run that was begun, with options that were given again.

    `train` finds out whether they are the same.
    """
    from keras_vit import TrainingRecipe, ViTConfig
    from keras_vit.recipes import RECIPES

    stored = _DEFAULTS | stored
    options.dataset = options.dataset or stored["dataset"]
    source = find_source(options)
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored["config"].items()
    }
    config = ViTConfig(**fields)
    if options.variant or options.image_size or options.resize:
        resize = options.resize or config.resize
        size = options.image_size or config.image_size
        config = new_config(source, options.variant, size, resize)
        config = _taught(config) if options.teacher or stored["teacher"] else config
    recipe = RECIPES.get(options.recipe) or TrainingRecipe(**stored["recipe"])
    return _plan(options, source, config, recipe, stored)


def _plan(options: argparse.Namespace, source, config, recipe, stored) -> Plan:
    """A plan of what options give and, where they give nothing, of what is stored."""

    def given(name: str) -> Any:
        value = getattr(options, name)
        return stored[name] if value is None else value

    batch_size, origin = given("batch_size"), given("origin")
    return Plan(
        source,
        config,
        _changed(recipe, options, batch_size),
        batch_size=batch_size,
        seed=given("seed"),
        precision=given("precision"),
        origin=None if origin is None else str(origin),
        teacher=given("teacher"),
    )


def _taught(config: "ViTConfig") -> "ViTConfig":
    """The same with a distillation token, and the class token that it stands beside."""
    tokens = {"class_token": True, "distillation_token": True, "pool": "token"}
    return dataclasses.replace(config, positions_cover_prefix=None, **tokens)


def _changed(
    recipe: "TrainingRecipe", options: argparse.Namespace, batch_size: int
) -> "TrainingRecipe":
    """A training recipe with the fields that options change."""
    names = ("epochs", "patience", "learning_rate", "accumulation", "distillation")
    given = {name: getattr(options, name) for name in names}
    given["flip"] = options.flip or None
    given |= dict(map(_recipe_field, options.set))
    given = {name: value for name, value in given.items() if value is not None}
    if "learning_rate" in given:
        # It is meant as it is, so it is that of the batches to come.
        accumulation = given.get("accumulation", recipe.accumulation)
        given["batch_size"] = max(batch_size, 1) * max(accumulation, 1)
    return dataclasses.replace(recipe, **given)


def _recipe_field(text: str) -> tuple[str, Any]:
    """`"mixup=0.2"` -> `("mixup", 0.2)`, of the field's own type."""
    from keras_vit.config import check_choice
    from keras_vit.recipes import TrainingRecipe

    defaults = {it.name: it.default for it in dataclasses.fields(TrainingRecipe)}
    name, _, value = text.partition("=")
    check_choice("--set", name, defaults)
    kind = type(defaults[name])
    if kind is tuple:
        return name, tuple(part for part in value.split(",") if part)
    if kind is bool:
        check_choice(f"--set {name}", value, ("true", "false"))
        return name, value == "true"
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(
            f"--set {name} must be of type {kind.__name__}. Received: {value!r}"
        ) from None


def open_model(path: pathlib.Path) -> "AnyClassifier":
    """The classifier of a `.keras` or `.tflite` file."""
    if path.suffix == ".keras":
        with quiet():
            import keras_vit  # noqa: F401 - registers the layers
    from keras_vit_export.classifiers import open_classifier

    with quiet():
        return open_classifier(path)


def open_keras(path: pathlib.Path) -> "AnyClassifier":
    """The classifier of a `.keras` file; no other will do."""
    if path.suffix != ".keras":
        raise ValueError(f"A .keras file is needed. Received: '{path}'")
    return open_model(path)


def data_for(classifier: "AnyClassifier", options: argparse.Namespace) -> "ImageData":
    """The data set, fitted to a model; both must mean the same classes."""
    source = find_source(options)
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


def image_paths(given: list[pathlib.Path]) -> list[pathlib.Path]:
    """Files as given, and all image files in folders, sorted."""
    paths = []
    for path in given:
        if not path.exists():
            raise ValueError(f"There is no file or folder '{path}'.")
        if path.is_dir():
            found = [path / name for name in image_files(path)]
            if not found:
                raise ValueError(f"There is no image in folder '{path}'.")
            paths += found
        else:
            paths.append(path)
    return paths


def image_files(folder: pathlib.Path, within: str = "") -> Iterator[str]:
    """Names of all image files below a folder and relative to it, sorted.

    Leaves out what is hidden or in a hidden folder, and does not follow links to
    folders, which may lead in circles. Holds the names of one folder at a time.
    """
    with os.scandir(folder / within) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from image_files(folder, f"{within}{entry.name}/")
        elif (
            os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
            and entry.is_file()  # neither a link to nothing nor a pipe
        ):
            yield within + entry.name


def next_free(path: pathlib.Path) -> pathlib.Path:
    """`path-1`, or the first such name with a higher number that is free."""
    number = 1
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def check_writable(*paths: pathlib.Path | None) -> None:
    """Finds out before the work whether its results can be written.

    Raises:
        ValueError: If a path is a folder, its folder is none or not writable, or two
            paths are the same.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        if path.is_dir():
            raise ValueError(f"'{path}' is a folder.")
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(f"'{path}' can't be written: {error.strerror}.") from error
    if len(set(given)) < len(given):
        raise ValueError("Two files to be written have the same name.")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    write_together({path: content})


def write_together(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes all files whole or none of them."""
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(keras_vit_files.whole_file(path)).write_bytes(content)


def write_json(path: pathlib.Path | None, content: dict[str, Any]) -> None:
    """Writes JSON whole or not at all; nothing without a path."""
    if path is not None:
        keras_vit_files.write_json(path, content)
