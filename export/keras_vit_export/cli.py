"""The command line. Parsing imports nothing heavy: `--help` answers at once."""

import argparse
import importlib
import os
import pathlib
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from keras_vit_device.terminal import quiet

from keras_vit_export.options import (
    add_dataset,
    add_ends,
    add_images,
    add_json,
    add_model,
    add_path,
    add_seed_and_json,
    add_split,
)
from keras_vit_export.plans import DEMO_EPOCHS
from keras_vit_export.published_options import (
    add_export_weights,
    add_features,
    add_import,
)
from keras_vit_export.quantization.recipes import RECIPES
from keras_vit_export.training_options import add_train

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
        _import(getattr(options, "modules", []))
        module = importlib.import_module(f"keras_vit_export.{options.module}")
        return getattr(module, options.function or options.command)(options)
    except KeyboardInterrupt as interruption:
        return _complain(f"interrupted. {interruption}", 130)
    except BrokenPipeError:  # `keras-vit ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE  # as of other programs; a training has not ended
    except MemoryError as error:
        _complain(str(error), 2)
        sys.stdout.flush()
        os._exit(2)  # TensorFlow would crash when it tidies up
    except (ValueError, OSError, RuntimeError) as error:
        return _complain(str(error), 2)


def _import(modules: Sequence[str]) -> None:
    """Modules of the user's own, found as Python finds them where he stands.

    Raises:
        ValueError: If there is none of that name, or it fails.
    """
    if modules:
        sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            with quiet():
                importlib.import_module(name)
        except (Exception, SystemExit) as error:  # code of the user's own
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"--import {name} failed. {reason}") from error


def _complain(message: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the options, and not what they all are."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # `--input-scale -1..1` has a value, and no option of that name.
        self._negative_number_matcher = re.compile(r"-\d")

    def error(self, message: str) -> NoReturn:
        sys.exit(_complain(f"{message} (see {self.prog} --help)", 2))


def _parser() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="Labelled images -> a small, checked Vision Transformer on a "
        "device.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    add_train(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_inspect(commands)
    _add_benchmark(commands)
    _add_classify(commands)
    _add_explain(commands)
    add_import(commands)
    add_export_weights(commands)
    add_features(commands)
    _add_web(commands)
    # Where a command's function is, and its name where that is not the command's.
    parser.set_defaults(module="commands", function=None)
    return parser


def _add_demo(commands) -> None:
    demo = commands.add_parser(
        "demo", help="train, export, check and report on the bundled digits"
    )
    add_path(demo, "--output", "RUN", "new folder (default: the next free runs/demo-N)")
    demo.add_argument(
        "--epochs", type=int, default=DEMO_EPOCHS, help="default: %(default)s"
    )
    add_seed_and_json(demo)


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="top-1 of a model on test images")
    add_model(evaluate, "a .keras or a .tflite")
    add_dataset(evaluate, required=True)
    add_ends(evaluate)
    add_split(evaluate, "test; of a folder that the model was not trained on, all")
    add_path(
        evaluate,
        "--confusion",
        "PNG",
        "where the confusion picture goes (default: beside the model)",
    )
    add_json(evaluate)


def _add_export(commands) -> None:
    export = commands.add_parser("export", help="write a checked .tflite")
    add_model(export, "a .keras")
    export.add_argument(
        "--recipe",
        default="dynamic_int8",
        help=f"{', '.join(RECIPES)}, or auto for the fastest that keeps to --max-drop "
        "(default: dynamic_int8)",
    )
    add_path(
        export,
        "--output",
        "TFLITE",
        "file to write; its report goes beside it, ending in .tflite.html and "
        ".tflite.json",
        required=True,
    )
    add_dataset(export, required=False)
    add_ends(export)
    add_split(export, "test")
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
    export.add_argument(
        "--compat",
        metavar="VERSION",
        help="2.14: a file that tflite-runtime 2.14 (2023) computes rightly too",
    )
    export.add_argument(
        "--rgb",
        action="store_true",
        help="let a model of one channel take colour images, as MediaPipe gives them",
    )
    add_json(export)


def _add_inspect(commands) -> None:
    inspect = commands.add_parser(
        "inspect", help="what a .tflite takes, gives and was measured to do"
    )
    inspect.set_defaults(module="inspecting")
    add_model(inspect, "a .tflite")
    inspect.add_argument(
        "--self-test",
        action="store_true",
        help="run the file's self-test on every accelerator of this machine; exit with "
        "3 if it fails, or there is none",
    )
    add_json(inspect)


def _add_benchmark(commands) -> None:
    benchmark = commands.add_parser(
        "benchmark", help="every recipe of a model, side by side"
    )
    add_model(benchmark, "a .keras")
    add_dataset(benchmark, required=True)
    add_ends(benchmark)
    add_split(benchmark, "test")
    add_path(benchmark, "--html", "FILE", "write a page with plots there")
    benchmark.add_argument(
        "--accelerator",
        default="auto",
        help="where the files are tried, besides: cpu, gpu (a mistake where there is "
        "none), or auto for all that are here (default)",
    )
    add_json(benchmark)


def _add_classify(commands) -> None:
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


def _add_explain(commands) -> None:
    explain = commands.add_parser(
        "explain", help="what a model's attention looks at in an image"
    )
    explain.set_defaults(module="explaining")
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


def _add_web(commands) -> None:
    web = commands.add_parser("web", help="a page that runs models in a browser")
    web.set_defaults(module="serving")
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


if __name__ == "__main__":
    sys.exit(main())
