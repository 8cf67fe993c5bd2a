"""Processes that begin with TensorFlow imported: some six seconds less for each."""

import functools
import multiprocessing
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
# Imported, not used: a TensorFlow that computed something can't be forked.
_CONTEXT.set_forkserver_preload(["keras", "keras_vit", "matplotlib.pyplot", "pytest"])


def start(function: Callable, *arguments: Any, **options: Any) -> BaseProcess:
    """A process that runs a function of a module; what it says is in its `said`."""
    handle, path = tempfile.mkstemp(dir=_logs().name)
    os.close(handle)
    process = _CONTEXT.Process(target=_run, args=(path, function, arguments, options))
    process.said = pathlib.Path(path)
    process.start()
    return process


def finished(process: BaseProcess, timeout: float | None = 240) -> int:
    """Its exit status; the negative number of a signal that killed it."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"It still ran after {timeout} seconds.")
    if process.exitcode:
        sys.stderr.write(process.said.read_text())
    return process.exitcode


@functools.cache
def _logs() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="processes")


def _run(said: str, function: Callable, arguments: tuple, options: dict) -> None:
    file = os.open(said, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    function(*arguments, **options)
