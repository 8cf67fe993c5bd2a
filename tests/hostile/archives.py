"""Archives that lie: of sizes, packings and places, and HDF5 that asks for memory."""

import copy
import functools
import io
import json
import pathlib
import random
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from keras_vit_device.classifier import Classifier

from keras_vit.files import load_model
from keras_vit.weights.tensors import read
from tests.device.bulk.running import DIGITS
from tests.hostile.damage import mutated
from tests.hostile.images import EXTREMES, PICTURE
from tests.hostile.saying import refusal, said

NAMES = ("../x", "/etc/x", "", "a" * 60_000, "a\0b", "\x1b[2J", "a//b", "a\\b", ".")
# Of an entry's record in the directory and before its content, and of the end.
_RECORDS = {
    b"PK\1\2": ("<H", (4, 6, 8, 10, 28, 30, 32, 34), "<I", (16, 20, 24, 38, 42)),
    b"PK\3\4": ("<H", (4, 6, 8, 26, 28), "<I", (14, 18, 22)),
    b"PK\5\6": ("<H", (4, 6, 8, 10, 20), "<I", (12, 16)),
}


@functools.cache
def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **{"a/kernel": np.ones((8, 8), "f4"), "b": np.zeros(3, "f2")})
    return file.getvalue()


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def flatbuffer(content: bytes) -> bytes:
    """The model of a `.tflite`, without the archive behind it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return content[: min(it.header_offset for it in archive.infolist())]


def _packed(front: bytes, entries: list, rng: random.Random) -> bytes:
    file = io.BytesIO()
    file.write(front)
    methods = [zipfile.ZIP_STORED] * 6 + [zipfile.ZIP_DEFLATED] * 3
    methods += [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, rng.choice(methods))
        archive.comment = b"x" * rng.choice((0, 0, 0, 60_000))
    return file.getvalue()


def _rewritten(front: bytes, entries: dict[str, bytes], rng: random.Random) -> bytes:
    """With entries left out, doubled, renamed, grown or many."""
    listed = list(entries.items())
    for _ in range(rng.choice((0, 1, 2))):
        at = rng.randrange(len(listed) or 1)
        name, content = listed[at] if listed else ("a", b"")
        kind = rng.randrange(6)
        if kind == 0:
            listed[at : at + 1] = []
        elif kind == 1:
            listed.append((name, mutated(content or b"x", rng)))
        elif kind == 2:
            listed[at : at + 1] = [(rng.choice(NAMES), content)]
        elif kind == 3:
            size = 10 ** rng.choice((3, 6, 8))
            listed[at : at + 1] = [(name, rng.choice((b" ", b"[", b"\0")) * size)]
        elif kind == 4:
            listed += [(f"{i}", b"") for i in range(rng.choice((10, 3000)))]
        else:
            rng.shuffle(listed)
    return _packed(front, listed, rng)


def _forged(content: bytes, rng: random.Random) -> bytes:
    """With fields of a record changed to extremes."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start, (*short, long, wide) = rng.choice(list(_RECORDS.items()))
        places = [at for at in range(len(content)) if content[at : at + 4] == start]
        if not places:
            continue
        packing, fields = rng.choice((short, (long, wide)))
        at = rng.choice(places) + rng.choice(fields)
        number = rng.choice(EXTREMES) % (2**16 if packing == "<H" else 2**32)
        content[at : at + struct.calcsize(packing)] = struct.pack(packing, number)
    return bytes(content)


def _hdf5(content: bytes, rng: random.Random) -> bytes:
    """Weights of which one is something else."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as weights:
        found: list[str] = []
        weights.visit(found.append)
        name = rng.choice(found)
        kind = rng.randrange(9)
        if kind < 7:
            del weights[name]
        if kind == 0:
            shape = (10 ** rng.choice((2, 5)),) * rng.choice((1, 2, 3))
            chunks = tuple(min(side, 100) for side in shape)
            weights.create_dataset(name, shape, "f4", chunks=chunks)
        elif kind == 1:  # a hundred megabytes of zeros
            zeros = np.zeros(25 * 10**6, "f4")
            weights.create_dataset(name, data=zeros, compression="gzip")
        elif kind == 2:
            weights[name] = h5py.SoftLink(rng.choice(("/", f"/{name}", "/none")))
        elif kind == 3:
            weights[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == 4:
            weights[name] = rng.choice((["a", "b"], [1 + 2j], [[1, 2]], 1, "text"))
        elif kind == 5:
            size = 8 * rng.choice((1, 10**9))
            weights.create_dataset(name, (size,), "f4", external=[("raw", 0, 4 * size)])
        elif kind == 7:
            weights[name].attrs["a"] = rng.choice(("\x1b[2J", 1, np.zeros(1000)))
    return file.getvalue() if kind < 8 else mutated(content, rng)


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to all that JSON holds, the whole first."""
    yield path
    pairs = node.items() if isinstance(node, dict) else ()
    pairs = enumerate(node) if isinstance(node, list) else pairs
    for key, value in pairs:
        yield from places(value, (*path, key))


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """A copy of what JSON held with a value at a place, or none for `...`."""
    if not path:
        return {} if value is ... else value
    made = copy.deepcopy(content)
    *outer, last = path
    inner = functools.reduce(lambda found, key: found[key], outer, made)
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return made


def changed_json(content: Any, rng: random.Random, values: tuple) -> Any:
    """A copy with another value, or none, or one more, at one place."""
    path = rng.choice(list(places(content)))
    if rng.random() < 0.1:
        path = (*path[:-1], rng.choice(("", "__proto__", "x")))
    value = ... if rng.random() < 0.2 else rng.choice(values)
    try:
        return replaced(content, path, value)
    except (KeyError, TypeError):  # nothing is there
        return content


VALUES = (
    *(None, True, False, -1, 0, 1, 2, 1.5, 1e308, float("nan"), 10**6, 10**12),
    *("", "x", "\x1b[2J", "keras.layers", [], [1], [[]], {}, {"a": 1}),
)


def _keras(rng: random.Random) -> bytes:
    entries = _entries(DIGITS.with_suffix(".keras").read_bytes())
    if rng.random() < 0.3:
        config = json.loads(entries["config.json"])
        for _ in range(rng.choice((1, 1, 3))):
            config = changed_json(config, rng, VALUES)
        entries["config.json"] = json.dumps(config).encode()
    elif rng.random() < 0.4:
        entries["model.weights.h5"] = _hdf5(entries["model.weights.h5"], rng)
    else:
        return _rewritten(b"", entries, rng)
    return _packed(b"", list(entries.items()), rng)


def hostile_archive(rng: random.Random) -> tuple[str, bytes]:
    """A suffix, and what a file of it holds."""
    suffix = rng.choice(("keras", "tflite", "npz"))
    if suffix == "keras":
        content = _keras(rng)
    elif suffix == "tflite":
        whole = DIGITS.read_bytes()
        content = _rewritten(flatbuffer(whole), _entries(whole), rng)
    else:
        content = _rewritten(b"", _entries(_npz()), rng)
    return suffix, _forged(content, rng) if rng.random() < 0.3 else content


def load(rng: random.Random) -> str:
    """By Python and by the command: the same end."""
    suffix, content = hostile_archive(rng)
    path = pathlib.Path(f"file.{suffix}")
    path.write_bytes(content)
    job = {"keras": load_model, "tflite": Classifier, "npz": read}[suffix]
    reason = refusal(job, path)
    command = {
        "keras": ("classify", path, PICTURE),
        "tflite": ("inspect", path),
        "npz": ("import", path, "--output", "out.keras"),
    }[suffix]
    status, _, err = said(*command)
    assert status == 2 or not reason, (status, reason)
    assert len(err) == 1 or status == 0, err
    assert [it.name for it in pathlib.Path().iterdir()] == [path.name], "left a file"
    return f"{suffix} {'refused' if reason else 'read'}"
