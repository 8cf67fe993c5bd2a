"""What the terminal shows: our lines, not those of C++ libraries."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO


def printable(told: object) -> str:
    """A text in which nothing moves a terminal's cursor, breaks a line or hides.

    Names of files and classes come from strangers; what can't be shown is an escape, as
    Python writes it.
    """
    return "".join(it if it.isprintable() else repr(it)[1:-1] for it in str(told))


def say(line: object, file: TextIO | None = None) -> None:
    """Prints one line, whatever names are in it; to `sys.stdout` if not said."""
    print(printable(line), file=file)


def one_line(told: object, most: int | None = None) -> str:
    """An error or another text without its line breaks.

    Args:
        told: What is to be said.
        most: Characters of it, where others' messages have no end.
    """
    return printable(" ".join(str(told).split()))[:most]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back file descriptor 2 in the block; shows it only if the block fails.

    TensorFlow, XLA and LiteRT write there from C++, past `sys.stderr` and whatever the
    log level. What Python writes to `sys.stderr`, progress bars above all, is shown.
    `ValueError`, `OSError`, `MemoryError`, `RuntimeError` and `ImportError` explain
    themselves; those that happened within TensorFlow, as an image that is gone, are
    taken out of it.

    Raises:
        ValueError: With their message.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with (
        tempfile.TemporaryFile() as held,
        open(os.dup(2), "w", buffering=1, errors="backslashreplace") as ours,
    ):
        os.dup2(held.fileno(), 2)
        shown = False
        try:
            # What stands in its place, as in a notebook, is not held back anyway.
            with contextlib.redirect_stderr(ours if _is_own() else sys.stderr):
                yield
        except (ValueError, OSError, MemoryError, RuntimeError, ImportError):
            raise
        except Exception as error:
            if words := _own_words(error):
                raise ValueError(words) from error
            shown = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            if shown:
                held.seek(0)
                os.write(2, held.read())


def _is_own() -> bool:
    """Whether Python's `sys.stderr` writes to file descriptor 2."""
    try:
        return sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _own_words(error: Exception) -> str | None:
    """What a Python function said that failed inside one of TensorFlow's graphs."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return None
    found = re.findall(r"^[\w.]*Error: (.+)$", error.message, re.MULTILINE)
    return found[-1] if found else None
