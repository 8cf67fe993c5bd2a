"""Processes that classify the images of a folder, and their rows in order.

Workers are not forked: LiteRT and the progress bar have threads, whose locks a fork
would copy as they happen to be. That costs some 0.3 seconds, once. Nor are they spawned
by `multiprocessing`, which would run the caller's script again in each, and prints a
traceback where this process is killed while they begin.
"""

import collections
import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from keras_vit_device.classifier import Classifier, most_probable
from keras_vit_device.terminal import one_line, quiet

# Its content, and what was said of its ends.
Model = tuple[bytes, dict[str, Any]]
# Images a message: enough to hide what a message costs, few enough to lose.
CHUNK = 16
# Chunks a worker that wait for the row before them, behind a slow image.
AHEAD = 4
# Processes that may die of one image, or before they have one in hand.
TRIES = 2
NO_IMAGE = -1
# What a worker's Python runs; it finds modules where this one does.
PROGRAM = """
import sys
sys.path[:] = {path!r}
from keras_vit_device.bulk.workers import work
work({connection}, {position})
"""


class WorkerDiedError(RuntimeError):
    """Worker processes end by themselves before they have an image in hand."""


def rows_of(
    model: Model, folder: pathlib.Path, names: Iterator[str], workers: int
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
                rows = worker.take()
                if rows is None:  # it has begun again
                    busy[worker.connection] = worker
                    continue
                done[worker.index] = rows
                idle.append(worker)
            while written in done:
                yield done.pop(written)
                written += 1
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process that classifies one chunk at a time, seen from the other side.

    Where it dies, another takes its place and begins the chunk again. An image that two
    have died on gets a row that says so.
    """

    def __init__(self, model: Model, folder: pathlib.Path):
        self._setup = (model, folder)
        # Which of the names it has in hand, for when it can't say so any more.
        self._position = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        files = {"connection": theirs.fileno(), "position": self._position.fileno()}
        program = PROGRAM.format(path=sys.path, **files)
        # Ctrl-C goes to all processes of a terminal; ours ends the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=tuple(files.values()),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()  # so that its end is ours to see
        with contextlib.suppress(OSError):  # `take` finds out that it is gone
            self.connection.send(self._setup)

    def end(self) -> None:
        """Ends the process and waits for it."""
        self.process.terminate()
        self.process.wait()
        self.connection.close()
        self._position.close()

    def give(self, index: int, names: list[str]) -> None:
        """Hands over the chunk of this index."""
        self.index, self._names = index, names
        self._deaths: collections.Counter[int] = collections.Counter()
        self._lost: dict[int, str] = {}
        self._send()

    def _send(self) -> None:
        _write_position(self._position.fileno(), NO_IMAGE)
        with contextlib.suppress(OSError):
            self.connection.send((self._names, self._lost))

    def take(self) -> list[list[str]] | None:
        """Waits for the chunk's rows; `None` if another process begins it again."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._begin_again()
            return None

    def _begin_again(self) -> None:
        status = self.process.wait()
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        position = _read_position(self._position.fileno())
        self._deaths[position] += 1
        if self._deaths[position] == TRIES:
            if position == NO_IMAGE:
                raise WorkerDiedError(f"{TRIES} workers died of {how} as they began.")
            self._lost[position] = f"the process that read it died of {how}"
        self.connection.close()
        self._start()
        self._send()


def work(handle: int, position: int) -> None:
    """What a worker process does: names -> rows, until the other side is gone.

    Args:
        handle: File descriptor of its end of the connection.
        position: Of the file that says which name it has in hand.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as in the process that it works for
    connection = Connection(handle)
    if (setup := _receive(connection)) is None:
        return
    with quiet():
        (content, ends), folder = setup
        classifier = Classifier(content, **ends)
    while (task := _receive(connection)) is not None:
        (names, lost), rows = task, []
        for place, name in enumerate(names):
            if place in lost:
                rows.append(_row_of_error(name, lost[place]))
                continue
            _write_position(position, place)
            rows.append(_row(classifier, folder, name))
        with contextlib.suppress(ConnectionError):
            connection.send(rows)


def _write_position(file: int, place: int) -> None:
    os.pwrite(file, place.to_bytes(8, sys.byteorder, signed=True), 0)


def _read_position(file: int) -> int:
    return int.from_bytes(os.pread(file, 8, 0), sys.byteorder, signed=True)


def _receive(connection: Connection) -> Any:
    """What the other side sends, or `None` where it is gone."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def _row(classifier: Any, folder: pathlib.Path, name: str) -> list[str]:
    try:
        image = classifier.read(folder / name)
        probabilities = classifier.probabilities([image])[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
        return _row_of_error(name, one_line(error) or type(error).__name__)
    best = most_probable(classifier.class_names, probabilities, 3)
    answers = [(class_name, f"{part:.4f}") for class_name, part in best]
    cells = [*itertools.chain(*answers), *[""] * 4][:6]  # two classes have no third
    return [name, *cells, ""]


def _row_of_error(name: str, error: str) -> list[str]:
    return [name, *[""] * 6, error]
