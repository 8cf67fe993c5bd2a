"""Files: found, and written whole or not at all. Standard library only."""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

_PARTIAL = ".partial-"  # what a kill may leave
# Checkpoints and models hardly shrink; text of a few megabytes may.
_MOST_EXPANSION = 20
_SMALL = 2**24


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


@contextlib.contextmanager
def open_archive(file: pathlib.Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """A ZIP archive from a stranger, whose entries are in proportion to its size.

    Raises:
        zipfile.BadZipFile: If it is none.
        ValueError: If it would unpack to far more than it is, or an entry is packed so
            that nobody can tell.
    """
    with zipfile.ZipFile(file) as archive:
        archive.fp.seek(0, os.SEEK_END)
        most = _MOST_EXPANSION * archive.fp.tell() + _SMALL
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > most:
            raise ValueError(
                f"It would unpack to {unpacked:,} bytes, more than {_MOST_EXPANSION} "
                "times its size."
            )
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                name = member.filename
                raise ValueError(f"Its {name!r} is neither stored nor deflated.")
        yield archive


def read_entry(archive: zipfile.ZipFile, name: str | zipfile.ZipInfo) -> bytes:
    """An entry of an archive of `open_archive`, held against its checksum.

    Raises:
        KeyError: If there is none of this name.
        zipfile.BadZipFile: If it is damaged.
    """
    member = archive.getinfo(name) if isinstance(name, str) else name
    with archive.open(member) as file:
        # Not more than it says: `archive.read` unpacks all, and cuts then.
        return file.read(member.file_size + 1)


def claim(descriptor: int, path: pathlib.Path) -> None:
    """Takes an open file or folder for this process, until it is closed or ends.

    Raises:
        ValueError: If another process has it.
        OSError: If the disk knows no such locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"'{path}' is being written by another process.") from None


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
