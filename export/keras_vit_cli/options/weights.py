"""Options of `import`, `export-weights` and `features`. Standard library only."""

import pathlib

from keras_vit_cli.options.shared import (
    add_images,
    add_json,
    add_model,
    add_path,
    image_size,
)


def add_import(commands) -> None:
    """Published weights -> a model."""
    load = commands.add_parser("import", help="published weights -> a .keras model")
    load.add_argument(
        "checkpoint",
        type=pathlib.Path,
        help="an .npz or safetensors file, its index, or a folder with one",
    )
    add_path(load, "--output", "KERAS", "new file", required=True)
    load.add_argument(
        "--image-size",
        type=image_size,
        metavar="PIXELS",
        help="side of the square the model sees, or HEIGHTxWIDTH (default: the "
        "checkpoint's)",
    )
    load.add_argument(
        "--patch-size",
        type=int,
        metavar="PIXELS",
        help="side of a patch (default: the checkpoint's)",
    )
    load.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="a new head for N classes (default: the checkpoint's)",
    )
    _add_what_is_not_said(load)
    add_json(load)


def _add_what_is_not_said(load) -> None:
    """What a checkpoint may leave open."""
    load.add_argument(
        "--preprocessing",
        help="inception, imagenet, big_vision, torchvision or torchvision_swag: mean, "
        "std and cutting, where the checkpoint doesn't say",
    )
    load.add_argument(
        "--position-mode",
        help="how positions are resized: bicubic_antialias, bicubic, bicubic_corners, "
        "dinov2 or linear (default: as the format's own code does)",
    )
    load.add_argument(
        "--num-heads", type=int, metavar="N", help="where the checkpoint doesn't say"
    )
    load.add_argument(
        "--source-image-size",
        type=image_size,
        metavar="PIXELS",
        help="of the checkpoint, if that was no square",
    )
    load.add_argument(
        "--prefix",
        metavar="NAME",
        help="which of several models in the file: what the names of its tensors begin "
        "with, such as teacher",
    )


def add_export_weights(commands) -> None:
    """A model -> a folder for timm."""
    save = commands.add_parser(
        "export-weights", help="a model's weights as a folder that timm reads"
    )
    add_model(save, "a .keras")
    add_path(
        save,
        "--output",
        "DIR",
        "new folder for model.safetensors and config.json",
        required=True,
    )
    add_json(save)


def add_features(commands) -> None:
    """Images -> their features."""
    features = commands.add_parser(
        "features", help="what a model sees in images, as arrays"
    )
    add_model(features, "a .keras")
    add_images(features)
    add_path(features, "--output", "NPZ", "file to write", required=True)
    features.add_argument(
        "--kind",
        default="both",
        help="token (the class token's), mean (of the patches) or both (default)",
    )
    add_json(features)
