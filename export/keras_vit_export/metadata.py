"""What travels inside the `.tflite`: class names, preprocessing, the export's report.

Both are files of a ZIP archive behind the model, where the TFLite Metadata format
keeps its label file: runtimes read the model from the front and never see it.
Standard library only.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from typing import Any

from keras_vit_export.tables import read_description

LABELS = "labels.txt"
CONTRACT = "keras_vit.json"
# What `attach` writes before each file: uncompressed, version 2.0, no flags.
_ZIP_START = b"PK\x03\x04\x14\0\0\0\0\0"


class DamagedError(ValueError):
    """A flatbuffer is not the one that was written."""


def attach(model: bytes, class_names: Sequence[str], contract: dict[str, Any]) -> bytes:
    """Appends class names, contract and the model's digest to a `.tflite`.

    Args:
        model: The flatbuffer.
        class_names: Name of each class, or none.
        contract: `"preprocessing"` and whatever else describes the file; JSON types.
    """
    contract = contract | {"sha256": digest(model)}
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        if class_names:
            archive.writestr(_entry(LABELS), "\n".join(class_names) + "\n")
        archive.writestr(_entry(CONTRACT), json.dumps(contract, indent=1))
    return buffer.getvalue()


def digest(model: bytes) -> str:
    """SHA-256 of a flatbuffer, in hexadecimal digits."""
    return hashlib.sha256(model).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    # A fixed time, so that the same model gives the same bytes.
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def read(model: bytes) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Class names and contract of a `.tflite`; empty where it carries none.

    Raises:
        DamagedError: If its contract has the digest of another flatbuffer.
        ValueError: If it carried some that is damaged or cut off.
    """
    if not zipfile.is_zipfile(io.BytesIO(model)):
        if _ZIP_START in model:
            raise ValueError("Its end, which holds class names and more, is missing.")
        return (), {}
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        # Else a file whose name is damaged would be one that is not there.
        if archive.testzip():
            raise ValueError("Its class names or what else it holds is damaged.")
        names = archive.namelist()
        contract = json.loads(archive.read(CONTRACT)) if CONTRACT in names else {}
        end = min((it.header_offset for it in archive.infolist()), default=None)
        # The archive has checksums of its own, the flatbuffer has none: a weight that
        # changed on its way would only be a worse answer.
        found = digest(model[:end])
        if contract.get("sha256", found) != found:
            raise DamagedError("its SHA-256 is not that of the model that was written.")
        # Of other exporters it has any name.
        ours = CONTRACT in names
        named = (not ours and read_description(model).labels) or LABELS
        labels = archive.read(named).decode("utf-8-sig") if named in names else ""
    lines = re.split(r"\r?\n", labels.rstrip("\r\n")) if labels else []
    return tuple(line.strip() for line in lines), contract
