"""Makes the model in this folder anew: python models/make.py (or `make box`)."""

import pathlib
import shutil
import sys
import tempfile

from keras_vit_cli.main import main
from PIL import Image

HERE = pathlib.Path(__file__).parent


def make() -> None:
    """Trains and exports the digits model, and writes five test images beside it."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        if status := main(["demo", "--output", str(run)]):
            sys.exit(status)
        shutil.copy(run / "model.keras", HERE / "digits.keras")
        shutil.copy(run / "dynamic_int8.tflite", HERE / "digits.tflite")
        shutil.copy(run / "predictions.png", HERE / "predictions.png")
    write_test_images()


def write_test_images() -> None:
    """Five digits of the test split, 8 x 8 pixels as they were collected."""
    from keras_vit import load_data

    for old in HERE.glob("*-shows-*.png"):
        old.unlink()
    examples = load_data("digits").test.unbatch().as_numpy_iterator()
    for index in range(5):
        image, label = next(examples)
        Image.fromarray(image[:, :, 0]).save(HERE / f"{index}-shows-{label}.png")


if __name__ == "__main__":
    make()
