"""What every runtime gets: a small trained model in every recipe, and 200 images.

The images are real, held out, and grey ones in false colours: a runtime that swapped
channels would be found out.
"""

import json
import pathlib

import keras
import numpy as np
from keras_vit_export.exporter import Exporter
from keras_vit_export.keras_classifier import KerasClassifier
from keras_vit_export.quantization.recipes import (
    OLD_RUNTIME,
    QUANTIZATION_RECIPES,
    QuantizationRecipe,
)
from PIL import Image

import keras_vit
from keras_vit.data import from_arrays

COUNT = 200
_SHORT = keras_vit.TrainingRecipe(epochs=2, learning_rate=5e-4, distillation="soft")
# Recipes whose file is another with `--compat 2.14`, and the name of that file.
COMPATIBLE = {name: f"{name}, compat" for name in ("dynamic_int8", "fast_int8")}
# One whose attention's weights are lifted, whether that pays or not.
LIFTED = "static_int8, lifted"
FILES = (*QUANTIZATION_RECIPES, *COMPATIBLE.values(), LIFTED)
# The same model with fewer tokens, in every recipe that it can be had in.
REDUCTIONS = {"pooled": ((0, "pool", 2),), "pruned": ((0, "prune", 0.5),)}
REDUCED = {
    kind: tuple(
        f"{recipe}, {kind}"
        for recipe in QUANTIZATION_RECIPES
        if (kind, recipe) != ("pruned", "full_int8")
    )
    for kind in REDUCTIONS
}
# The image files are smaller than the model's input, and larger. The larger ones have
# the smaller ones' pixels as squares: whoever shrinks them without averaging shows it.
SCALES = {"smaller": 1, "larger": 4}


def recipe_of(name: str) -> QuantizationRecipe:
    """The recipe of one of `FILES` or of `REDUCED`."""
    return QUANTIZATION_RECIPES[name.partition(",")[0]]


def make(folder: pathlib.Path) -> None:
    """Trains, exports and writes all that the runtimes are compared on.

    Writes `RECIPE.tflite`, and `RECIPE, pooled.tflite` and so on; `arrays.npy`, the smaller files' images as the model takes
    them; `smaller/` and `larger/` with the image files; `keras.npz`, Keras'
    probabilities for each of the three; and `about.json`.
    """
    keras.utils.set_random_seed(0)
    name, class_names, images, labels, side, recipe = _pictures()
    images = _false_colours(images)
    count = len(images)
    rows = np.split(np.arange(count), [count - 2 * COUNT, count - COUNT])
    rows = dict(zip(("train", "validation", "test"), rows, strict=True))
    config = keras_vit.ViTConfig.from_variant(
        "compact/4",
        image_size=side,
        channels=3,
        num_classes=len(class_names),
        class_names=class_names,
    )
    source = from_arrays(name, class_names, images, labels, rows)
    data = source.load(config, batch_size=128)
    model = keras_vit.build_vit(config)
    run = keras_vit.train(model, data, recipe, verbose=0)
    _export(model, data, folder)
    classifier = KerasClassifier(model)
    expected = {}
    for scale, times in SCALES.items():
        paths = _write(folder / scale, images[-COUNT:], times)
        fitted = np.stack([classifier.read(path) for path in paths])
        expected[scale] = classifier.probabilities(fitted)
        if scale == "smaller":
            np.save(folder / "arrays.npy", fitted)
            expected["arrays"] = expected[scale]
    for kind, steps in REDUCTIONS.items():
        reduced = keras_vit.with_fewer_tokens(model, steps)
        keras_vit.train(reduced, data, _SHORT, teacher=model, verbose=0)
        exporter = Exporter(reduced, data)
        recipes = {name: recipe_of(name).name for name in REDUCED[kind]}
        files, _ = exporter.check(
            {name: exporter.convert(recipe) for name, recipe in recipes.items()},
            ("cpu",),
        )
        for name, content in files.items():
            (folder / f"{name}.tflite").write_bytes(content)
        arrays = np.load(folder / "arrays.npy")
        expected[kind] = KerasClassifier(reduced).probabilities(arrays)
    np.savez(folder / "keras.npz", **expected)
    about = {
        "data": name,
        "file_side": images.shape[1],
        "side": side,
        "weights": model.count_params(),
        "top1": float(run.evaluation.top1),
    }
    (folder / "about.json").write_text(json.dumps(about))


def _pictures():
    """Name, classes, images, labels, the model's side and recipe.

    Fashion-MNIST where TensorFlow Datasets has it already, else the bundled digits.
    """
    import tensorflow_datasets as tfds

    try:
        (images, labels), (held_out, their_labels) = tfds.load(
            "fashion_mnist",
            split=["train[:12000]", f"test[:{COUNT}]"],
            batch_size=-1,
            as_supervised=True,
            download=False,
        )
    except (AssertionError, OSError):  # it is not there
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images * 15.9).astype("uint8")
        recipe = keras_vit.TrainingRecipe(epochs=20)
        return "digits", tuple("0123456789"), images, digits.target, 16, recipe
    class_names = tfds.builder("fashion_mnist").info.features["label"].names
    images = np.concatenate([images, held_out])[..., 0]
    labels = np.concatenate([labels, their_labels])
    recipe = keras_vit.TrainingRecipe(epochs=6, translation=0, label_smoothing=0)
    return "fashion_mnist", class_names, images, labels, 32, recipe


def _false_colours(grey: np.ndarray) -> np.ndarray:
    """Grey pixels `(..., )` -> colours `(..., 3)`, no channel like another."""
    red = grey.astype("float32")
    return np.stack([red, red**2 / 255, 255 - red], -1).astype("uint8")


def _export(model, data, folder: pathlib.Path) -> None:
    exporter = Exporter(model, data)
    made = {name: exporter.convert(name) for name in QUANTIZATION_RECIPES}
    candidates = exporter._candidates
    plain = candidates.make_plain(QUANTIZATION_RECIPES["static_int8"])
    files, _ = exporter.check(made | {LIFTED: candidates._lift(plain)})
    old = Exporter(model, data, compat=OLD_RUNTIME)
    more, _ = old.check({name: old.convert(name) for name in COMPATIBLE})
    files |= {COMPATIBLE[name]: content for name, content in more.items()}
    for name, content in files.items():
        (folder / f"{name}.tflite").write_bytes(content)


def _write(folder: pathlib.Path, images: np.ndarray, times: int) -> list[pathlib.Path]:
    folder.mkdir()
    paths = [folder / f"{index:03}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(path)
    return paths
