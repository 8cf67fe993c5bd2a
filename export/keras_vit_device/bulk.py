"""A folder of any number of images -> one CSV, on all cores. No TensorFlow.

A run that was stopped or killed goes on where its CSV ends, and the end is the same to
the byte. Rows come in the order of the sorted names; memory does not grow with them.

Workers are spawned, not forked: LiteRT and the progress bar have threads, whose locks a
fork would copy as they happen to be. That costs some 0.3 seconds, once.
"""

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import itertools
import multiprocessing
import os
import pathlib
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keras_vit_device.files import check_writable
from keras_vit_device.images import LeftOut, image_names
from keras_vit_device.terminal import quiet

if TYPE_CHECKING:
    from keras_vit_device.classifier import Classifier

# Its content, and what was said of its ends.
_Model = tuple[bytes, dict[str, Any]]

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
# Images a message: enough to hide what a message costs, few enough to lose.
CHUNK = 16
# Chunks a worker that wait for the row before them, behind a slow image.
AHEAD = 4


class WorkerDiedError(RuntimeError):
    """A worker process ended by itself: was killed, or crashed on an image."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a CSV holds.

    Attributes:
        images: Number of rows.
        unreadable: Files whose row has an error in place of a class.
        left_out: What has no row, a line a reason.
        remarks: What is to be said of the model, a line each.
    """

    images: int
    unreadable: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def classify_folder(
    model: str | pathlib.Path,
    folder: str | pathlib.Path,
    output: str | pathlib.Path,
    workers: int | None = None,
    **ends: Any,
) -> Summary:
    """Classifies all images below a folder; goes on where an earlier call stopped.

    A script must call this under `if __name__ == "__main__"`, as each worker imports it.

    Args:
        model: A `.tflite`.
        folder: Its images, those that `keras_vit_device.images.image_names` finds.
        output: CSV with `COLUMNS`; `file` is relative to the folder, `model` the start
            of the model file's SHA-256. One row an image, also of an unreadable one.
        workers: Processes; all cores if not given.
        **ends: Of a model of another make: `input_scale`, `logits` and `class_names` of
            `Classifier`; with them `model` is of the file and of these.

    Raises:
        ValueError: If the model or the folder can't be used, or there is a CSV that is
            not the beginning of this one. It stays as it is.
        WorkerDiedError: If a worker ended by itself. The rows before are kept.
    """
    folder, output = pathlib.Path(folder), pathlib.Path(output)
    if pathlib.Path(model).suffix != ".tflite":
        raise ValueError(
            "A folder is classified into a file by a .tflite, which keras-vit export "
            f"makes. Received: '{model}'"
        )
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"The workers must be one or more. Received: {workers}")
    if not folder.is_dir():
        raise ValueError(f"There is no folder '{folder}', and --output takes one.")
    check_writable(output)
    ends = {name: given for name, given in ends.items() if given}
    classifier = _tried(model, ends)
    content = classifier.content
    marks = repr(sorted(ends.items())).encode() if ends else b""
    digest = hashlib.sha256(content + marks).hexdigest()[:12]
    left_out = LeftOut()
    total = sum(1 for _ in image_names(folder, left_out))
    if not total:
        raise ValueError(left_out.explain_none(folder))
    with _locked(output) as file:
        names = image_names(folder)
        images, unreadable = _resume(file, names, digest, output)
        # At least one: images may have come since they were counted.
        workers = max(1, min(workers, -(-(total - images) // CHUNK)))
        rows = _rows((content, ends), folder, names, workers)
        try:
            with contextlib.closing(rows), _progress(images, total) as bar:
                for chunk in rows:
                    file.write(_csv([*row, digest] for row in chunk))
                    file.flush()
                    images += len(chunk)
                    unreadable += [row[0] for row in chunk if _is_unreadable(row)]
                    bar.update(len(chunk))
        except (KeyboardInterrupt, WorkerDiedError) as error:
            kept = f"{images:,} rows are kept in '{output}'; the same command goes on."
            raise type(error)(f"{error} {kept}".strip()) from None
    remarks = tuple(filter(None, (*classifier.remarks, classifier.doubt)))
    return Summary(images, tuple(unreadable), tuple(left_out.lines), remarks)


def _tried(model: str | pathlib.Path, ends: dict[str, Any]) -> "Classifier":
    """A model tried on an image: one that none fits would end every worker."""
    with quiet():
        from keras_vit_device.classifier import Classifier

        classifier = Classifier(model, **ends)
        classifier.probabilities([classifier.read(np.zeros((1, 1, 3), "uint8"))])
    return classifier


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _progress(done: int, total: int) -> Any:
    from tqdm import tqdm

    # disable=None: unless a person is watching.
    return tqdm(initial=done, total=total, unit=" images", leave=False, disable=None)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to read and to append to, by one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            # The system lets go of it when the process ends, however it does.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"'{path}' is being written by another process.") from None
        yield file


def _resume(
    file: BinaryIO, names: Iterator[str], digest: str, path: pathlib.Path
) -> tuple[int, list[str]]:
    """Leaves the file ready for the next row, and in `names` what is to be done.

    Returns:
        How many rows there are, and which files among them are unreadable.
    """
    header = _csv([COLUMNS])
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
        unreadable += [row[0]] if _is_unreadable(row) else []
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


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _is_unreadable(row: list[str]) -> bool:
    return bool(row[COLUMNS.index("error")])


def _rows(
    model: _Model, folder: pathlib.Path, names: Iterator[str], workers: int
) -> Iterator[list[list[str]]]:
    """Rows without the last column, in the order of the names, a chunk at a time."""
    chunks = enumerate(iter(lambda: list(itertools.islice(names, CHUNK)), []))
    chunk = next(chunks, None)
    if chunk is None:
        return
    crew: list[_Worker] = []
    try:
        crew += (_Worker(model, folder) for _ in range(workers))
        idle, busy = list(crew), {}
        done, written = {}, 0
        while chunk or busy:
            while chunk and idle and chunk[0] - written < AHEAD * workers:
                worker = idle.pop()
                worker.give(*chunk)
                busy[worker.connection] = worker
                chunk = next(chunks, None)
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                done[worker.index] = worker.take()
                idle.append(worker)
            while written in done:
                yield done.pop(written)
                written += 1
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()


class _Worker:
    """A process that classifies one chunk at a time, seen from the other side."""

    def __init__(self, model: _Model, folder: pathlib.Path):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # Which of the names it has in hand, for when it can't say so any more.
        self.position = context.RawValue("q", 0)
        self.process = context.Process(
            target=_work, args=(model, folder, theirs, self.position), daemon=True
        )
        # Ctrl-C goes to all processes of a terminal; ours ends the others. The tracker
        # unblocks it when it starts, so it starts first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that its end is ours to see

    def give(self, index: int, names: list[str]) -> None:
        """Hands over the chunk of this index."""
        self.index, self.names, self.position.value = index, names, 0
        try:
            self.connection.send(names)
        except OSError:
            raise self._death() from None

    def take(self) -> list[list[str]]:
        """Waits for the chunk's rows."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> WorkerDiedError:
        self.process.join()
        status = self.process.exitcode
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        name = self.names[self.position.value]
        return WorkerDiedError(f"a worker died of {how} with '{name}' in hand.")


def _work(
    model: _Model, folder: pathlib.Path, connection: Connection, position: Any
) -> None:
    """What a worker process does: names -> rows, until the other side is gone."""
    from keras_vit_device.classifier import Classifier

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as in the process that it works for
    with quiet():
        content, ends = model
        classifier = Classifier(content, **ends)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            names, rows = connection.recv(), []
            for position.value, name in enumerate(names):
                rows.append(_row(classifier, folder, name))
            connection.send(rows)


def _row(classifier: Any, folder: pathlib.Path, name: str) -> list[str]:
    from keras_vit_device.classifier import most_probable

    try:
        image = classifier.read(folder / name)
        probabilities = classifier.probabilities([image])[0]
    except (OSError, ValueError) as error:  # no image, or one without an answer
        return [name, *[""] * 6, " ".join(str(error).split())]
    best = most_probable(classifier.class_names, probabilities, 3)
    answers = [(class_name, f"{part:.4f}") for class_name, part in best]
    cells = [*itertools.chain(*answers), *[""] * 4][:6]  # two classes have no third
    return [name, *cells, ""]
