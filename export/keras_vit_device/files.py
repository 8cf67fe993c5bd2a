"""Files: found, and written whole or not at all. Standard library only."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_PARTIAL = ".partial-"  # what a kill may leave


@contextlib.contextmanager
def whole_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, renamed to `path` once the block ends without an error.

    After an error, a kill at any moment or a power cut, `path` is what it was before.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: pathlib.Path) -> None:
    """Returns when the disk has the file: a rename may reach it before its content."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def as_json(content: dict[str, Any]) -> bytes:
    """Indented JSON with a newline at its end."""
    return (json.dumps(content, indent=2) + "\n").encode()


def write_json(path: str | pathlib.Path | None, content: dict[str, Any]) -> None:
    """Writes indented JSON, whole or not at all; nothing without a path."""
    if path is not None:
        write_bytes(pathlib.Path(path), as_json(content))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    write_together({path: content})


def write_together(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Writes files whole, and gives none its name before all are written."""
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(whole_file(path)).write_bytes(content)


def existing_file(path: str | pathlib.Path) -> pathlib.Path:
    """Checks that a file is there.

    Raises:
        ValueError: If nothing is, or a folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder, not a file.")
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'.")
    return path


def new_folder(path: str | pathlib.Path) -> pathlib.Path:
    """Checks that a folder is new or empty; does not make it yet.

    Raises:
        ValueError: If it is a file or holds something that was finished.
    """
    path = pathlib.Path(path)
    held = path.iterdir() if path.is_dir() else ()
    if path.is_file() or not all(it.name.startswith(_PARTIAL) for it in held):
        raise ValueError(f"'{path}' already holds a run or other files.")
    return path


def check_writable(
    *paths: pathlib.Path | None, read: Iterable[pathlib.Path] = ()
) -> None:
    """Finds out before the work whether its results can be written.

    Args:
        paths: Of the results, which take the place of what is there.
        read: Files that the work reads.

    Raises:
        ValueError: If a path is a folder, a device or a pipe, or read, its folder is
            none or not writable, or two paths are the same.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        if path.is_dir():
            raise ValueError(f"'{path}' is a folder.")
        if path.exists() and not path.is_file():
            raise ValueError(f"'{path}' is no regular file.")
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(f"'{path}' can't be written: {error.strerror}.") from error
    if len({path.resolve() for path in given}) < len(given):
        raise ValueError("Two files to be written have the same name.")
    taken = {path.resolve() for path in read}
    for path in given:
        if path.resolve() in taken:
            raise ValueError(f"'{path}' is to be read, so it can't be written.")
