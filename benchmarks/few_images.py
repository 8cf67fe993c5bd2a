"""What README's own command makes of few images, beside a small CNN trained as long.

    python benchmarks/few_images.py photos-150 photos-600 --seeds 3

Each FOLDER holds one subfolder a class, and FOLDER-test the images that are answered.
Both models see the same images: what `keras-vit train` trains on, and what it picks the
best epoch by. The CNN has four convolutions with batch normalization, flips, turns and
zoom, and 60 epochs.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from figures import machine
from keras import layers
from keras_vit_device.pixels import fit_array, open_image

import keras_vit
from keras_vit.data import find_source
from keras_vit.data.folders import find_images
from keras_vit.files import load_model
from keras_vit.reuse import config_of

# README, "Your own images".
COMMAND = ("train", "--image-size", "64")
CNN_EPOCHS = 60


def labelled(folder: pathlib.Path, rule: keras_vit.Preprocessing):
    """All images of a folder, as a model takes them, and their labels."""
    found = find_images(folder)
    files = [file for part in found.files.values() for file in part]
    images = [
        fit_array(np.asarray(open_image(path).convert("RGB")), rule.rule)
        for path, _ in files
    ]
    return np.stack(images).astype("float32"), np.array([label for _, label in files])


def top1(model: keras.Model, folder: pathlib.Path, rule) -> float:
    """Part of a folder's images that a model answers rightly, 0..1."""
    images, labels = labelled(folder, rule)
    return float(np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels))


def ours(folder: pathlib.Path, test: pathlib.Path, seed: int, options: list[str]):
    """README's command in a process of its own: top-1 and minutes."""
    with tempfile.TemporaryDirectory() as place:
        run = pathlib.Path(place, "run")
        arguments = [*COMMAND, *options, "--dataset", folder, "--seed", seed]
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "keras_vit_cli.main"]
            + [str(it) for it in (*arguments, "--output", run)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        minutes = (time.monotonic() - start) / 60
        model = load_model(run / "model.keras")
    return top1(model, test, config_of(model)), minutes


def small_cnn(side: int, num_classes: int) -> keras.Model:
    """Four convolutions, as Keras' own guide to image classification has them."""
    stack = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.05),
        layers.RandomZoom(0.2),
        layers.Rescaling(1 / 255),
    ]
    for filters in (32, 64, 128, 128):
        stack += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            # Keras' 0.99 wants more steps than a hundred images give.
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    stack += [
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.3),
        layers.Dense(num_classes, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((side, side, 3)), *stack])


def cnn(folder: pathlib.Path, test: pathlib.Path, seed: int, side: int):
    """The CNN on the same images, its best epoch by validation: top-1 and minutes."""
    start = time.monotonic()
    keras.utils.set_random_seed(seed)
    rule = keras_vit.Preprocessing(image_size=side)
    source = find_source(str(folder))
    data = source.load(rule, batch_size=32, seed=seed)
    model = small_cnn(side, len(data.class_names))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    train = data.train.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
    best = keras.callbacks.EarlyStopping(
        "val_loss", patience=CNN_EPOCHS, restore_best_weights=True
    )
    model.fit(
        train,
        validation_data=data.validation,
        epochs=CNN_EPOCHS,
        callbacks=[best],
        verbose=0,
    )
    minutes = (time.monotonic() - start) / 60
    return top1(model, test, rule), minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each folder")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", choices=("ours", "cnn"), help="leave out the other")
    parser.add_argument(
        "--cnn-side", type=int, default=96, help="side of the CNN's images, in pixels"
    )
    known, options = parser.parse_known_args()  # what is left goes to keras-vit
    print("\n\n".join(machine().values()), end="\n\n")
    print("| images | seed | ours | minutes | CNN | minutes |")
    print("|---|---|---|---|---|---|", flush=True)
    for folder in known.folders:
        test = folder.with_name(f"{folder.name}-test")
        count = sum(map(len, find_images(folder).files.values()))
        for seed in range(known.first_seed, known.first_seed + known.seeds):
            cells = [str(count), str(seed)]
            for name, train, how in (
                ("ours", ours, options),
                ("cnn", cnn, known.cnn_side),
            ):
                if known.only in (None, name):
                    accuracy, minutes = train(folder, test, seed, how)
                    cells += [f"{accuracy:.1%}", f"{minutes:.1f}"]
                else:
                    cells += ["", ""]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
