"""Tensors of a file by name: nothing in it is executed, and nothing of it is trusted."""

import dataclasses
import io
import json
import math
import pathlib
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors
import tensorflow as tf
from keras_vit_device.files import existing_file, open_archive, read_entry

from keras_vit.weights.foreign import (
    folder_refusal,
    pickle_refusal,
    refusal,
    zip_refusal,
)

BFLOAT16 = tf.bfloat16.as_numpy_dtype
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": BFLOAT16,
    # Of what no model needs: counters, masks.
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file, or several that belong together, hold.

    Attributes:
        tensors: Arrays by name, of the file's own types.
        notes: JSON that lies beside them (`config.json`, `preprocessor_config.json`) or
            in the file's own metadata (`__metadata__`), by that name.
    """

    tensors: dict[str, np.ndarray]
    notes: dict[str, dict[str, Any]]


def read(path: str | pathlib.Path) -> Stored:
    """Reads an `.npz` or safetensors file, known by content, or a folder with one.

    Args:
        path: The file; the index of several safetensors files; or a folder as Hugging
            Face and timm lay it out.

    Raises:
        ValueError: If there is no such file, it is a pickle, or is damaged.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        found = [path / name for name in (SINGLE, INDEX) if (path / name).is_file()]
        if not found:
            raise ValueError(
                f"There is no {SINGLE} and no {INDEX} in folder '{path}'. "
                f"{folder_refusal(path)}".rstrip()
            )
        path = found[0]
    existing_file(path)
    notes = {
        name: _read_json(path.parent / name)
        for name in ("config.json", "preprocessor_config.json")
        if (path.parent / name).is_file()
    }
    if path.name.endswith(".index.json"):
        return Stored(_read_shards(path), notes)
    if _is_zip(path):
        return Stored(_read_npz(path), {})
    tensors, metadata = _read_safetensors(path)
    return Stored(tensors, notes | ({"__metadata__": metadata} if metadata else {}))


def _is_zip(path: pathlib.Path) -> bool:
    """Whether a file is a ZIP archive; if not, it may be safetensors.

    Eight bytes of a safetensors file are its header's length, which may be anybody's
    first bytes. Its header begins with "{", which no ZIP archive has there.

    Raises:
        ValueError: If it is of another kind.

    Source: https://huggingface.co/docs/safetensors ("MUST begin with a { character").
    """
    with open(path, "rb") as file:
        start = file.read(32)
    if start[8:9] == b"{":
        return False
    if start[:2] == b"PK":
        return True
    if why := refusal(path, start):
        raise ValueError(why)
    return False


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(  # noqa: TRY004 - a user's file
            f"'{path}' must hold a JSON object."
        )
    return content


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with open_archive(path) as archive:
            members = archive.infolist()
            if why := zip_refusal(path, [member.filename for member in members]):
                raise ValueError(why)
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise ValueError(f"'{path}' is damaged: it has two arrays of one name.")
            return {
                name: _read_npy(archive, member)
                for name, member in zip(names, members, strict=True)
            }
    except ValueError:
        raise
    except Exception as error:  # zipfile and zlib have no error that covers all
        raise ValueError(f"'{path}' is damaged. {_reason(error)}") from error


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; its bytes are checked against their CRC."""
    name, content = member.filename, read_entry(archive, member)
    try:
        # The header alone is NumPy's: its reader would take an object's pickle apart.
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = header(stream)
    except Exception as error:
        raise ValueError(f"Array {name!r} has no header. {_reason(error)}") from error
    if dtype.hasobject:
        raise ValueError(f"Array {name!r} holds pickled objects.")
    if dtype == np.dtype("V2"):  # big_vision's bfloat16
        dtype = np.dtype(BFLOAT16)
    data = memoryview(content)[stream.tell() :]
    # Empty ones may claim any length along another axis.
    if min(shape, default=1) < 1 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(
            f"Array {name!r} of shape {shape} and type {dtype} has {len(data)} bytes."
        )
    array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    content = path.read_bytes()
    header = _safetensors_header(path, content)
    try:
        listed = safetensors.deserialize(content)
    except Exception as error:  # the library's own, and Python's
        raise ValueError(
            f"'{path}' is damaged{_cut_off(header, content)}. {_reason(error)}"
        ) from error
    tensors = {}
    for name, tensor in listed:
        dtype = _SAFETENSORS_DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise ValueError(
                f"Tensor {name!r} of '{path}' is of a type that is not read: "
                f"{tensor['dtype']} (quantized weights are not read)"
            )
        if 0 in tensor["shape"]:
            raise ValueError(
                f"Tensor {name!r} of '{path}' is empty: shape {tensor['shape']}"
            )
        array = np.frombuffer(tensor["data"], dtype)
        tensors[name] = array.reshape(tensor["shape"])
    return tensors, header.get("__metadata__", {})


def _safetensors_header(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    """The header, checked for what its library lets pass: names that come twice."""
    damaged = f"'{path}' is neither .npz nor safetensors, or is damaged"
    if len(content) < 10:
        raise ValueError(f"{damaged}: it has {len(content)} bytes.")
    (length,) = struct.unpack("<Q", content[:8])
    if length > len(content) - 8:
        raise ValueError(
            f"{damaged}: bytes 0 to 7 say that its header has {length} bytes, of a file "
            f"of {len(content)}."
        )
    try:
        header = json.loads(
            content[8 : 8 + length].decode("utf-8"), object_pairs_hook=_once
        )
        if not isinstance(header, dict):
            raise TypeError("it is no JSON object")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{damaged}: its header is wrong. {_reason(error)}") from error
    return header


def _cut_off(header: dict[str, Any], content: bytes) -> str:
    """Whether bytes are missing at the end of what the header describes, in words."""
    try:
        ends = [
            int(it["data_offsets"][1])
            for name, it in header.items()
            if name != "__metadata__"
        ]
    except (TypeError, KeyError, IndexError, ValueError):
        return ""
    expected = 8 + int.from_bytes(content[:8], "little") + max(ends, default=0)
    if expected <= len(content):
        return ""
    return f": it ends after {len(content)} of {expected} bytes"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of pairs whose names all differ."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name comes twice")
    return made


def _read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(
        isinstance(file, str) and pathlib.Path(file).name == file
        for file in listed.values()
    ):
        raise ValueError(f"'{index}' must name, in weight_map, files beside it.")
    tensors, files = {}, sorted(set(listed.values()))
    for file in files:
        path = index.with_name(file)
        if not path.is_file():
            raise ValueError(f"There is no file '{path}', which '{index}' names.")
        if _is_zip(path):
            raise ValueError(pickle_refusal(*map(index.with_name, files)))
        found, _ = _read_safetensors(path)
        expected = {name for name, where in listed.items() if where == file}
        differing = sorted(found.keys() ^ expected)
        if differing:
            raise ValueError(
                f"'{path}' and '{index}' differ in their tensors: {differing[:5]}"
            )
        tensors |= found
    return tensors


def name_first(names: Sequence[str]) -> str:
    """The first names of a file, in a line that can be printed."""
    names = [name if name.isprintable() else repr(name) for name in names]
    shown = ", ".join(names[:8]) or "nothing"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
