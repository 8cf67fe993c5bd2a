"""A folder of images -> one CSV: what is checked before, done, and told."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from keras_vit_device.bulk.answers import as_csv, is_unreadable, lock, resume
from keras_vit_device.bulk.workers import CHUNK, WorkerDiedError, rows_of
from keras_vit_device.classifier import Classifier
from keras_vit_device.files import check_writable
from keras_vit_device.images import LeftOut, image_names
from keras_vit_device.terminal import quiet


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
    workers = _count_cores() if workers is None else workers
    _check(model, folder, workers)
    check_writable(output)
    ends = {name: given for name, given in ends.items() if given}
    classifier = _open_classifier(model, ends)
    marks = repr(sorted(ends.items())).encode() if ends else b""
    digest = hashlib.sha256(classifier.content + marks).hexdigest()[:12]
    left_out = LeftOut()
    total = sum(1 for _ in image_names(folder, left_out))
    if not total:
        raise ValueError(left_out.explain_none(folder))
    with lock(output) as file:
        names = image_names(folder)
        images, unreadable = resume(file, names, digest, output)
        # At least one: images may have come since they were counted.
        workers = max(1, min(workers, -(-(total - images) // CHUNK)))
        rows = rows_of((classifier.content, ends), folder, names, workers)
        try:
            with contextlib.closing(rows), _progress(images, total) as bar:
                for chunk in rows:
                    file.write(as_csv([*row, digest] for row in chunk))
                    file.flush()
                    images += len(chunk)
                    unreadable += [row[0] for row in chunk if is_unreadable(row)]
                    bar.update(len(chunk))
        except (KeyboardInterrupt, WorkerDiedError) as error:
            kept = f"{images:,} rows are kept in '{output}'; the same command goes on."
            raise type(error)(f"{error} {kept}".strip()) from None
    remarks = tuple(filter(None, (*classifier.remarks, classifier.doubt)))
    return Summary(images, tuple(unreadable), tuple(left_out.lines), remarks)


def _check(model: str | pathlib.Path, folder: pathlib.Path, workers: int) -> None:
    if pathlib.Path(model).suffix != ".tflite":
        raise ValueError(
            "A folder is classified into a file by a .tflite, which keras-vit export "
            f"makes. Received: '{model}'"
        )
    if workers < 1:
        raise ValueError(f"The workers must be one or more. Received: {workers}")
    if not folder.is_dir():
        raise ValueError(f"There is no folder '{folder}', and --output takes one.")


def _open_classifier(model: str | pathlib.Path, ends: dict[str, Any]) -> Classifier:
    """The model, tried on an image: one that none fits would end every worker."""
    with quiet():
        classifier = Classifier(model, **ends)
        classifier.probabilities([classifier.read(np.zeros((1, 1, 3), "uint8"))])
    return classifier


def _count_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _progress(done: int, total: int) -> Any:
    from tqdm import tqdm

    # disable=None: unless a person is watching.
    return tqdm(initial=done, total=total, unit=" images", leave=False, disable=None)
