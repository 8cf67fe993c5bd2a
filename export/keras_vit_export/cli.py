"""The command line. Parsing imports nothing heavy: `--help` answers at once."""

import argparse
import importlib
import os
import pathlib
import sys
import warnings
from collections.abc import Sequence

from keras_vit_export.recipes import RECIPES

PROGRAM = "keras-vit"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Exit status: 0, 2 after a user's mistake, 3 if nothing keeps to the budget, 4 if
        another worker is gone, 130 after an interruption.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; ours are printed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that are not UTF-8
    try:
        module = importlib.import_module(f"keras_vit_export.{options.module}")
        # Not a name in Python: import.
        name = "load" if options.command == "import" else options.command
        return getattr(module, name.replace("-", "_"))(options)
    except KeyboardInterrupt as interruption:
        return _complain(f"interrupted. {interruption}".strip(), 130)
    except BrokenPipeError:  # `keras-vit ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        return _complain(" ".join(str(error).split()), 2)


def _complain(message: str, status: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Labelled images -> a small, checked Vision Transformer on a "
        "device.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_benchmark(commands)
    _add_classify(commands)
    _add_import(commands)
    _add_export_weights(commands)
    _add_features(commands)
    parser.set_defaults(module="commands")
    return parser


def _add_demo(commands) -> None:
    demo = commands.add_parser(
        "demo", help="train, export, check and report on the bundled digits"
    )
    demo.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="RUN",
        help="new folder (default: the next free runs/demo-N)",
    )
    demo.add_argument("--epochs", type=int, default=80, help="default: 80")
    _add_seed_and_json(demo)


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train a model on labelled images")
    _add_dataset(train, required=False)
    train.add_argument(
        "--recipe",
        help="small (default), scratch_small, deit, augreg, finetune or linear_probe; "
        "the options below change it",
    )
    train.add_argument(
        "--from",
        type=pathlib.Path,
        dest="origin",
        metavar="KERAS",
        help="a trained .keras file to start from; its head is made anew if the classes "
        "differ",
    )
    train.add_argument(
        "--variant",
        help="size and patch side, such as nano/2, micro/4 or Ti/16 "
        "(default: by the size of the images)",
    )
    train.add_argument(
        "--image-size",
        type=_image_size,
        metavar="PIXELS",
        help="side of the square the model sees, or HEIGHTxWIDTH "
        "(default: that of the images up to 64 pixels, else 224)",
    )
    _add_training(train)
    _add_run(train)
    train.add_argument("--seed", type=int, help="default: 0")
    _add_json(train)


def _add_training(train) -> None:
    """How it is trained."""
    train.add_argument("--epochs", type=int, help="default: the recipe's")
    train.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="end after N epochs without a better one (default: never)",
    )
    train.add_argument(
        "--batch-size",
        type=int,
        help="images a step, over all workers together (default: 64)",
    )
    train.add_argument(
        "--accumulation",
        type=int,
        metavar="N",
        help="add up the gradients of N batches for each change of the weights",
    )
    train.add_argument(
        "--learning-rate",
        type=float,
        help="peak (default: the recipe's, in proportion to the batch size)",
    )
    train.add_argument(
        "--precision", help="float32 (default) or mixed_bfloat16, of the computations"
    )
    train.add_argument(
        "--teacher",
        type=pathlib.Path,
        metavar="KERAS",
        help="a .keras file whose answers are learnt too, by a distillation token",
    )
    train.add_argument(
        "--distillation",
        help="what a teacher gives: hard (its class, default) or soft (probabilities)",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change any other field of the recipe, such as mixup=0.2 or "
        "trainable=head,final_norm,block_11; may be given several times",
    )
    train.add_argument(
        "--flip", action="store_true", help="mirror images at random in training"
    )
    train.add_argument(
        "--resize",
        help="stretch (default) or crop, which keeps proportions",
    )


def _add_run(train) -> None:
    """Where the run goes, and on which machines it goes on."""
    train.add_argument("--output", type=pathlib.Path, metavar="RUN", help="new folder")
    train.add_argument(
        "--resume",
        type=pathlib.Path,
        metavar="RUN",
        help="go on with a run that was interrupted, from its newest checkpoint",
    )
    train.add_argument(
        "--checkpoint-steps",
        type=int,
        default=0,
        metavar="N",
        help="write a checkpoint every N steps too (default: when an epoch begins)",
    )
    train.add_argument(
        "--continue",
        action="store_true",
        dest="go_on",
        help="with --output: go on if that run was begun already, as a supervisor "
        "needs it that starts the same command again",
    )
    train.add_argument(
        "--strategy",
        default="auto",
        help="mirrored for all GPUs of this host, multiworker for the hosts in "
        "TF_CONFIG, or auto (default)",
    )
    train.add_argument(
        "--worker-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long other hosts are waited for at the start (default: 300)",
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="build the model, estimate its memory, make a few steps, say how long the "
        "whole would take, and write nothing",
    )


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="top-1 of a model on test images")
    _add_model(evaluate, "a .keras or a .tflite")
    _add_dataset(evaluate, required=True)
    evaluate.add_argument(
        "--confusion",
        type=pathlib.Path,
        metavar="PNG",
        help="where the confusion picture goes (default: beside the model)",
    )
    _add_json(evaluate)


def _add_export(commands) -> None:
    export = commands.add_parser("export", help="write a checked .tflite")
    _add_model(export, "a .keras")
    export.add_argument(
        "--recipe",
        default="dynamic_int8",
        help=f"{', '.join(RECIPES)}, or auto for the fastest that keeps to --max-drop "
        "(default: dynamic_int8)",
    )
    export.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="TFLITE",
        required=True,
        help="file to write; its report goes beside it, ending in .tflite.html and "
        ".tflite.json",
    )
    _add_dataset(export, required=False)
    export.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="keep the layers that suffer most in higher precision until top-1 on "
        "validation images falls by no more percentage points; if it can't be held, "
        "write nothing and exit with 3 (default with auto: 0.5)",
    )
    export.add_argument(
        "--rewrites",
        default="auto",
        help="auto (default), or required to refuse a model that can't be rewritten",
    )
    _add_json(export)


def _add_benchmark(commands) -> None:
    benchmark = commands.add_parser(
        "benchmark", help="every recipe of a model, side by side"
    )
    _add_model(benchmark, "a .keras")
    _add_dataset(benchmark, required=True)
    benchmark.add_argument(
        "--html",
        type=pathlib.Path,
        metavar="FILE",
        help="write a page with plots there",
    )
    _add_json(benchmark)


def _add_classify(commands) -> None:
    classify = commands.add_parser("classify", help="name what images show")
    _add_model(classify, "a .keras or a .tflite")
    _add_images(classify)
    _add_json(classify)


def _add_import(commands) -> None:
    load = commands.add_parser("import", help="published weights -> a .keras model")
    load.set_defaults(module="published")
    load.add_argument(
        "checkpoint",
        type=pathlib.Path,
        help="an .npz or safetensors file, its index, or a folder with one",
    )
    load.add_argument(
        "--output", type=pathlib.Path, metavar="KERAS", required=True, help="new file"
    )
    load.add_argument(
        "--image-size",
        type=_image_size,
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
    load.add_argument(
        "--preprocessing",
        help="inception, imagenet or big_vision: mean, std and cutting, where the "
        "checkpoint doesn't say",
    )
    load.add_argument(
        "--position-mode",
        help="how positions are resized: bicubic_antialias, bicubic, dinov2 or linear "
        "(default: as the format's own code does)",
    )
    load.add_argument(
        "--num-heads", type=int, metavar="N", help="where the checkpoint doesn't say"
    )
    load.add_argument(
        "--source-image-size",
        type=_image_size,
        metavar="PIXELS",
        help="of the checkpoint, if that was no square",
    )
    _add_json(load)


def _add_export_weights(commands) -> None:
    save = commands.add_parser(
        "export-weights", help="a model's weights as a folder that timm reads"
    )
    save.set_defaults(module="published")
    _add_model(save, "a .keras")
    save.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        required=True,
        help="new folder for model.safetensors and config.json",
    )
    _add_json(save)


def _add_features(commands) -> None:
    features = commands.add_parser(
        "features", help="what a model sees in images, as arrays"
    )
    features.set_defaults(module="published")
    _add_model(features, "a .keras")
    _add_images(features)
    features.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="NPZ",
        required=True,
        help="file to write",
    )
    features.add_argument(
        "--kind",
        default="both",
        help="token (the class token's), mean (of the patches) or both (default)",
    )
    _add_json(features)


def _add_model(parser, kinds: str) -> None:
    parser.add_argument("model", type=pathlib.Path, help=f"{kinds} file")


def _add_images(parser) -> None:
    parser.add_argument(
        "images",
        type=pathlib.Path,
        nargs="+",
        metavar="IMAGE",
        help="image files, or folders of them",
    )


def _add_dataset(parser, required: bool) -> None:
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


def _add_seed_and_json(parser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    _add_json(parser)


def _add_json(parser) -> None:
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="write the figures there too"
    )


def _image_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(
            f"must be PIXELS or HEIGHTxWIDTH. Received: {text!r}"
        )
    return int(sides[0]), int(sides[-1])


if __name__ == "__main__":
    sys.exit(main())
