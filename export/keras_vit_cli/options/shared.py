"""Options that several commands have. Standard library only."""

import argparse
import pathlib
from typing import Any


def add_model(parser: argparse.ArgumentParser, kinds: str) -> None:
    """The file of a model, of these kinds."""
    parser.add_argument("model", type=pathlib.Path, help=f"{kinds} file")
    if ".keras" in kinds:
        add_modules(parser)


def add_modules(parser: argparse.ArgumentParser) -> None:
    """Modules that a `.keras` needs."""
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="a Python module to import first, which registers layers of your own that "
        "the .keras has; its code is run; may be given several times",
    )


def add_ends(parser: argparse.ArgumentParser) -> None:
    """What goes into a model of another make, and what comes out."""
    parser.add_argument(
        "--input-scale",
        default="",
        metavar="SCALE",
        help="what a model of another make takes in place of pixels in 0..255: 0..1, "
        "-1..1, imagenet, caffe, or MEAN,STD in pixels (default: what stands in it)",
    )
    parser.add_argument(
        "--logits",
        action="store_true",
        help="a model of another make gives logits, though nothing in it says so",
    )
    add_path(
        parser,
        "--labels",
        "FILE",
        "names of the classes, one a line (default: those in the model, else of the "
        "data set)",
    )


def add_images(parser: argparse.ArgumentParser) -> None:
    """Image files and folders."""
    parser.add_argument(
        "images",
        type=pathlib.Path,
        nargs="+",
        metavar="IMAGE",
        help="image files, or folders of them",
    )


def add_dataset(parser: argparse.ArgumentParser, required: bool) -> None:
    """Labelled images."""
    parser.add_argument(
        "--dataset",
        required=required,
        metavar="NAME|DIR",
        help="digits, a folder with one subfolder a class, or a name of TensorFlow "
        "Datasets",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where TensorFlow Datasets keeps its files"
    )
    parser.add_argument(
        "--broken",
        default="skip",
        help="unreadable files of a folder: skip (default) or refuse",
    )


def add_split(parser: argparse.ArgumentParser, default: str) -> None:
    """The part of the data set that figures are of."""
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        help=f"images that are reported on: train, validation, test or all (default: "
        f"{default})",
    )


def add_seed_and_json(parser: argparse.ArgumentParser) -> None:
    """A seed, and a file for the figures."""
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    add_json(parser)


def add_path(
    parser: argparse.ArgumentParser, flag: str, metavar: str, text: str, **more: Any
) -> None:
    """An option that is a file or a folder; `more` is of `add_argument`."""
    parser.add_argument(flag, type=pathlib.Path, metavar=metavar, help=text, **more)


def add_json(parser: argparse.ArgumentParser) -> None:
    """A file for the figures."""
    add_path(parser, "--json", "FILE", "write the figures there too")


def image_size(text: str) -> tuple[int, int]:
    """`"224"` or `"160x224"` -> (height, width) in pixels.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(
            f"must be PIXELS or HEIGHTxWIDTH. Received: {text!r}"
        )
    return int(sides[0]), int(sides[-1])
