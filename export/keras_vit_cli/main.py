"""The command line. Parsing imports nothing heavy: `--help` answers at once."""

import argparse
import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from keras_vit_device.terminal import one_line, quiet, say

from keras_vit_cli.options.export import (
    add_benchmark,
    add_demo,
    add_evaluate,
    add_export,
    add_inspect,
    add_speedup,
)
from keras_vit_cli.options.train import add_train
from keras_vit_cli.options.use import add_classify, add_explain, add_web
from keras_vit_cli.options.weights import add_export_weights, add_features, add_import

PROGRAM = "keras-vit"
# Files of commands whose names Python has for itself.
MODULES = {"import": "import_weights"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Exit status: 0, 2 after a user's mistake, 3 if nothing keeps to the budget, 4 if
        another worker is gone, 130 after an interruption.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _take_tensorflow()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; ours are printed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that are not UTF-8
    try:
        with quiet():
            _import(getattr(options, "modules", []))
            command = options.command.replace("-", "_")
            module = MODULES.get(command, command)
            return importlib.import_module(f"keras_vit_cli.{module}").run(options)
    except KeyboardInterrupt as interruption:
        return _complain(f"interrupted. {interruption}", 130)
    except BrokenPipeError:  # `keras-vit ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE  # as of other programs; a training has not ended
    except MemoryError as error:
        _complain(str(error) or "out of memory.", 2)
        sys.stdout.flush()
        os._exit(2)  # TensorFlow would crash when it tidies up
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        return _complain(str(error), 2)


def _take_tensorflow() -> None:
    """Keras' backend is TensorFlow, whatever else this user's programs run on."""
    given = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if given not in (None, "", "tensorflow"):
        line = f"KERAS_BACKEND={given} is passed over: {PROGRAM} runs on TensorFlow."
        say(line, file=sys.stderr)


def _import(modules: Sequence[str]) -> None:
    """Modules of the user's own, found as Python finds them where he stands.

    Raises:
        ValueError: If there is none of that name, or it fails.
    """
    if modules:
        sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # code of the user's own
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"--import {name} failed. {reason}") from error


def _complain(message: str, status: int) -> int:
    say(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)
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
    add_demo(commands)
    add_train(commands)
    add_evaluate(commands)
    add_export(commands)
    add_speedup(commands)
    add_inspect(commands)
    add_benchmark(commands)
    add_classify(commands)
    add_explain(commands)
    add_import(commands)
    add_export_weights(commands)
    add_features(commands)
    add_web(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
