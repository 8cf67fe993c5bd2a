"""What travels inside the `.tflite`: class names, preprocessing, the export's report.

Both are files of a ZIP archive behind the model, where the TFLite Metadata format
keeps its label file: runtimes read the model from the front and never see it.
Standard library only.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from keras_vit_device.tflite import labels
from keras_vit_device.tflite.tables import Description, read_description

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


@dataclasses.dataclass(frozen=True)
class Attached:
    """What a `.tflite` carries behind its model and in it.

    Attributes:
        class_names: Name of each class, or `()`.
        contract: Of ours: `"preprocessing"` and whatever else describes the file.
        description: MediaPipe's metadata, of files of other makes.
        remarks: What could not be read of these, a line each.
    """

    class_names: tuple[str, ...] = ()
    contract: dict[str, Any] = dataclasses.field(default_factory=dict)
    description: Description = dataclasses.field(default_factory=Description)
    remarks: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether this package wrote the file, whose models scale pixels themselves."""
        return "preprocessing" in self.contract


def read(model: bytes) -> Attached:
    """What a `.tflite` carries; nothing where it carries none.

    Raises:
        DamagedError: If its contract has the digest of another flatbuffer.
        ValueError: If it carried some that is damaged or cut off.
    """
    if not zipfile.is_zipfile(io.BytesIO(model)):
        if _ZIP_START in model:
            raise ValueError("Its end, which holds class names and more, is missing.")
        return Attached(description=read_description(model))
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
        ours = CONTRACT in names
        description = Description() if ours else read_description(model)
        named = description.labels or LABELS  # of other exporters it has any name
        content = archive.read(named) if named in names else b""
    try:
        class_names, remarks = labels.parse(content), ()
    except UnicodeDecodeError:
        class_names = ()
        remarks = (f"The class names in its {named} are no UTF-8 and are not used.",)
    return Attached(class_names, contract, description, remarks)
