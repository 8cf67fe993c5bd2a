"""Files: found, and written whole or not at all. Standard library only.

It stands beside the packages because `import keras_vit` loads TensorFlow, and commands
that a device runs must not.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
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
        synced(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def synced(path: pathlib.Path) -> None:
    """Returns when the disk has the file: a rename may reach it before its content."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def as_json(content: dict[str, Any]) -> bytes:
    """Indented JSON with a newline at its end."""
    return (json.dumps(content, indent=2) + "\n").encode()


def write_json(path: str | pathlib.Path, content: dict[str, Any]) -> None:
    """Writes indented JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(as_json(content))


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
