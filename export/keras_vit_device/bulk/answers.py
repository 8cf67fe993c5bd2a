"""The CSV of a folder's answers: written by one process, gone on with where it ends."""

import contextlib
import csv
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from keras_vit_device.files import claim

COLUMNS = (
    "file",
    "class",
    "probability",
    "class_2",
    "probability_2",
    "class_3",
    "probability_3",
    "error",
    "model",
)


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to read and to append to, by one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        claim(file.fileno(), path)
        yield file


def resume(
    file: BinaryIO, names: Iterator[str], digest: str, path: pathlib.Path
) -> tuple[int, list[str]]:
    """Leaves the file ready for the next row, and in `names` what is to be done.

    Returns:
        How many rows there are, and which files among them are unreadable.
    """
    header = as_csv([COLUMNS])
    rows = _whole_rows(file, path)
    first, end = next(rows, (None, 0))
    if first is None:
        file.seek(0)
        beginning = file.read(len(header))  # of a header, if it was killed there
    if tuple(first or COLUMNS) != COLUMNS or (
        first is None and not header.startswith(beginning)
    ):
        raise ValueError(f"'{path}' is no CSV of classified images.")
    images, unreadable = 0, []
    for row, end in rows:
        if row[-1] != digest:
            raise ValueError(
                f"'{path}' holds answers of another model; take another --output."
            )
        expected = next(names, None)
        if row[0] != expected:
            raise ValueError(
                f"'{path}' holds {row[0]!r} where the folder has {expected!r}: images "
                "were added or removed, an earlier version left some out, or it is another "
                "folder; take another --output."
            )
        images += 1
        unreadable += [row[0]] if is_unreadable(row) else []
    file.truncate(end)
    if first is None:
        file.write(header)
    return images, unreadable


def _whole_rows(file: BinaryIO, path: pathlib.Path) -> Iterator[tuple[list[str], int]]:
    """Rows with the offset behind each in bytes, but for a last one that was cut off."""
    line, end = b"", 0

    def lines() -> Iterator[str]:
        nonlocal line, end
        for line in file:
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    file.seek(0)
    try:
        for row in csv.reader(lines()):
            # The last column needs no quotes, so a row ends where its line does.
            if len(row) == len(COLUMNS) and line.endswith(b"\r\n"):
                yield row, end
            elif file.read(1):
                raise ValueError(f"'{path}' is no CSV of classified images.")
    except csv.Error as error:
        raise ValueError(f"'{path}' is no CSV of classified images.") from error


def as_csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def is_unreadable(row: list[str]) -> bool:
    return bool(row[COLUMNS.index("error")])
