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

from keras_vit_device.files import open_archive, read_entry
from keras_vit_device.terminal import one_line
from keras_vit_device.tflite import labels
from keras_vit_device.tflite.contract import check_contract
from keras_vit_device.tflite.tables import Description, read_description

LABELS = "labels.txt"
CONTRACT = "keras_vit.json"
# What `attach` writes before each file: uncompressed, version 2.0, no flags.
_ZIP_START = b"PK\x03\x04\x14\0\0\0\0\0"


class DamagedError(ValueError):
    """What a file carries, or its flatbuffer, is not what was written."""


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
        DamagedError: If its contract is none, or has the digest of another flatbuffer.
        ValueError: If it carried some that is damaged or cut off.
    """
    if not zipfile.is_zipfile(io.BytesIO(model)):
        if _ZIP_START in model:
            raise ValueError("Its end, which holds class names and more, is missing.")
        return Attached(description=read_description(model))
    with open_archive(io.BytesIO(model)) as archive:
        entries = archive.infolist()
        # All: a file whose name is damaged would be one that is not there.
        files = {it.filename: read_entry(archive, it) for it in entries}
    try:
        # As the page reads it: no UTF-16, no NaN.
        text = files.get(CONTRACT, b"{}").decode("utf-8-sig")
        parsed = json.loads(text, parse_constant=_refuse, parse_float=_number)
        contract = check_contract(parsed)
    except (ValueError, RecursionError) as error:
        raise DamagedError(one_line(error, 200)) from error
    end = min((it.header_offset for it in entries), default=None)
    # The archive has checksums of its own, the flatbuffer has none: a weight that
    # changed on its way would only be a worse answer.
    found = digest(model[:end])
    if contract.get("sha256", found) != found:
        raise DamagedError("its SHA-256 is not that of the model that was written.")
    description = Description() if CONTRACT in files else read_description(model)
    named = description.labels or LABELS  # of other exporters it has any name
    # tflite-support refuses them too.
    packed = {it.filename for it in entries if it.compress_type != zipfile.ZIP_STORED}
    for name in packed & {CONTRACT, named}:
        raise DamagedError(f"its {name} is compressed.")
    try:
        class_names, remarks = labels.parse(files.get(named, b"")), ()
    except UnicodeDecodeError:
        class_names = ()
        remarks = (f"The class names in its {named} are no UTF-8 and are not used.",)
    return Attached(class_names, contract, description, remarks)


def _number(digits: str) -> int | float:
    """A number of JSON, where 8.0 is 8."""
    number = float(digits)
    return int(number) if number.is_integer() else number


def _refuse(constant: str) -> None:
    raise ValueError(f"its contract has {constant}.")
