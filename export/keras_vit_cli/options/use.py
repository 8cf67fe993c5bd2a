"""Options of `classify`, `explain` and `web`. Standard library only."""

import pathlib

from keras_vit_cli.options.shared import (
    add_ends,
    add_images,
    add_json,
    add_model,
    add_path,
)


def add_classify(commands) -> None:
    """Images -> what they show."""
    classify = commands.add_parser("classify", help="name what images show")
    add_model(classify, "a .keras or a .tflite")
    add_images(classify)
    add_ends(classify)
    add_path(
        classify,
        "--output",
        "CSV",
        "file to write, one row an image of one folder; one that a stopped run left "
        "is continued",
    )
    classify.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes, with --output (default: one a core)",
    )
    add_json(classify)


def add_explain(commands) -> None:
    """An image -> what a model looks at."""
    explain = commands.add_parser(
        "explain", help="what a model's attention looks at in an image"
    )
    add_model(explain, "a .keras")
    explain.add_argument("image", type=pathlib.Path, metavar="IMAGE", help="image file")
    add_path(
        explain,
        "--output",
        "PNG",
        "picture of every head's map and of the rollout, to write",
        required=True,
    )
    add_path(
        explain,
        "--positions",
        "PNG",
        "picture of how alike the positions are, to write",
    )
    add_json(explain)


def add_web(commands) -> None:
    """Files -> a page that runs them."""
    web = commands.add_parser("web", help="a page that runs models in a browser")
    web.add_argument(
        "models",
        type=pathlib.Path,
        nargs="*",
        metavar="TFLITE",
        help=".tflite files to choose from (default: the page asks for one)",
    )
    web.add_argument(
        "--port",
        type=int,
        help="of 127.0.0.1; 0 for any that is free (default: the first free one from "
        "8000 on)",
    )
    add_json(web)
