"""Which images a model was trained on, told by their content and not by a path.

A model's file carries the smallest of the hashes of its training and validation files.
Hashes are as good as random, so this is a sample of those files, and the part of it that
is found among other files is about the part of the training images there (a bottom-k
sketch: Cohen and Kaplan, https://doi.org/10.1145/1281100.1281133).
"""

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keras_vit_device.files import open_archive, read_entry, whole_file

from keras_vit.data.pipeline import ImageSource

# Beside what Keras writes into a `.keras`, which it does not look at.
ENTRY = "keras_vit.json"
KEY = "trained_on"
# Hashes in a sketch, of 8 bytes each: files of one hash by chance are none.
SKETCH, HASH_BYTES = 64, 8
# Images that training never sees.
_UNSEEN = "test"

Record = dict[str, Any]


def make_record(source: ImageSource) -> Record:
    """What to remember of a data set that a model was trained on.

    Returns:
        `"dataset"`, its name or that of its folder, without the way there; `"images"`,
        how many were trained and validated on; and of a folder `"sketch"`.
    """
    seen = [name for name in source.splits if name != _UNSEEN]
    record = {
        "dataset": pathlib.PurePath(source.name).name,
        "images": sum(source.splits[name].count for name in seen),
    }
    if source.is_folder:
        found = {hash_ for name in seen for hash_ in hashes(source.paths(name))}
        record["sketch"] = sorted(found)[:SKETCH]
    return record


def hashes(paths: Iterable[str | bytes | os.PathLike[str]]) -> list[str]:
    """The first 8 bytes of each file's SHA-1, in hexadecimal digits.

    Files that are gone have none: after a training nothing may fail for them.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [hash_ for hash_ in pool.map(_hash, paths) if hash_]


def _hash(path: str | bytes | os.PathLike[str]) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha1").hexdigest()[: 2 * HASH_BYTES]
    except OSError:
        return ""


def write_records(path: str | pathlib.Path, records: list[Record]) -> None:
    """Puts records into a `.keras`, in place of those that it has."""
    with (
        whole_file(path) as partial,
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(partial, "w") as new,
    ):
        for entry in old.infolist():
            if entry.filename != ENTRY:
                new.writestr(entry, old.read(entry))
        new.writestr(ENTRY, json.dumps({KEY: records}))


def read_records(path: str | pathlib.Path) -> list[Record]:
    """The records of a `.keras`; none if it carries none."""
    try:
        with open_archive(path) as archive:
            return known_records(json.loads(read_entry(archive, ENTRY)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []


def known_records(contract: Any) -> list[Record]:
    """Records in what a file carries, of the form that `make_record` gives."""
    given = contract.get(KEY) if isinstance(contract, dict) else None
    return [it for it in given if _is_record(it)] if isinstance(given, list) else []


def _is_record(given: Any) -> bool:
    if not isinstance(given, dict) or not isinstance(given.get("dataset"), str):
        return False
    sketch = given.get("sketch", [])
    return isinstance(sketch, list) and all(isinstance(it, str) for it in sketch)


def overlap(records: list[Record], found: set[str]) -> tuple[int, int]:
    """How many sampled training images are among these files, and of how many.

    Of several trainings, that of which most are.
    """
    sketches = [it["sketch"] for it in records if it.get("sketch")]
    counts = [(sum(hash_ in found for hash_ in it), len(it)) for it in sketches]
    return max(counts, key=lambda pair: pair[0] / pair[1], default=(0, 0))
