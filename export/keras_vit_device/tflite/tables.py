"""Flatbuffers read without their schema, and what MediaPipe's metadata say in one.

Standard library only: the runtime reads other exporters' files with it.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Self

# Places of fields in the tables of TFLite's schema.fbs (Model, Metadata, Buffer) and of
# metadata_schema.fbs (TensorFlow Lite Support, version 1.0.0).
_BUFFERS, _METADATA = 4, 6
_NAME, _BUFFER = 0, 1
_SUBGRAPHS, _INPUTS, _OUTPUTS = 3, 2, 3
_UNITS, _FILES = 4, 6
_UNIT_TYPE, _OPTIONS = 0, 1
_NORMALIZATION, _CALIBRATION = 1, 2
_FILE_NAME, _FILE_TYPE = 0, 2
_LABELS = (2, 3)  # of an axis, or of a value


@dataclasses.dataclass(frozen=True)
class Description:
    """What MediaPipe's metadata say of an image classifier.

    Attributes:
        mean: NormalizationOptions' mean in pixels, one number or one a channel; `()`
            if there is none.
        std: Likewise.
        labels: Name of the file of class names behind the model, or empty.
        calibrated: Whether scores are to be calibrated before they mean anything.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: str = ""
    calibrated: bool = False


def read_description(model: bytes) -> Description:
    """The metadata of a `.tflite`; nothing where it carries none.

    Raises:
        ValueError: If they are cut off or damaged.
    """
    try:
        root = Table.root(model)
        for entry in root.tables(_METADATA):
            if entry.text(_NAME) == "TFLITE_METADATA":
                buffer = list(root.tables(_BUFFERS))[entry.number(_BUFFER, "<I")]
                return _read_model_metadata(Table.root(buffer.content(0)))
    except (struct.error, IndexError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"Its metadata are damaged. {error}") from error
    return Description()


def _read_model_metadata(root: "Table") -> Description:
    subgraph = next(root.tables(_SUBGRAPHS), None)
    if subgraph is None:
        return Description()
    mean, std, labels, calibrated = (), (), "", False
    for tensor in subgraph.tables(_INPUTS):
        for unit in tensor.tables(_UNITS):
            if unit.number(_UNIT_TYPE, "<B") == _NORMALIZATION:
                options = unit.table(_OPTIONS)
                mean, std = options.floats(0), options.floats(1)
    for tensor in subgraph.tables(_OUTPUTS):
        for unit in tensor.tables(_UNITS):
            calibrated |= unit.number(_UNIT_TYPE, "<B") == _CALIBRATION
        for file in tensor.tables(_FILES):
            if file.number(_FILE_TYPE, "<B") in _LABELS:
                labels = labels or file.text(_FILE_NAME)
    return Description(mean, std, labels, calibrated)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a flatbuffer: fields are known by their places in its schema.

    Source: https://flatbuffers.dev/internals (encoding).
    """

    data: bytes
    start: int

    @classmethod
    def root(cls, data: bytes) -> Self:
        """The table that a flatbuffer is."""
        return cls(data, _unpack("<I", data, 0))

    def _at(self, field: int) -> int | None:
        """Where a field's value is, or `None` if it has its default."""
        fields = self.start - _unpack("<i", self.data, self.start)
        place = 4 + 2 * field
        if place >= _unpack("<H", self.data, fields):
            return None
        offset = _unpack("<H", self.data, fields + place)
        return self.start + offset if offset else None

    def _follow(self, field: int) -> int | None:
        at = self._at(field)
        return None if at is None else at + _unpack("<I", self.data, at)

    def number(self, field: int, kind: str) -> int:
        """A number of a `struct` format; 0 if it isn't there."""
        at = self._at(field)
        return 0 if at is None else _unpack(kind, self.data, at)

    def content(self, field: int) -> bytes:
        """Bytes of a vector of bytes or of a text."""
        at = self._follow(field)
        if at is None:
            return b""
        length = _unpack("<I", self.data, at)
        return self.data[at + 4 : at + 4 + length]

    def text(self, field: int) -> str:
        """A text; empty if it isn't there."""
        return self.content(field).decode()

    def floats(self, field: int) -> tuple[float, ...]:
        """A vector of float32."""
        at = self._follow(field)
        if at is None:
            return ()
        length = _unpack("<I", self.data, at)
        return struct.unpack_from(f"<{length}f", self.data, at + 4)

    def table(self, field: int) -> Self:
        """The table that a field points to.

        Raises:
            IndexError: If there is none.
        """
        at = self._follow(field)
        if at is None:
            raise IndexError(f"Field {field} is missing.")
        return type(self)(self.data, at)

    def tables(self, field: int) -> Iterator[Self]:
        """The tables of a vector of them."""
        at = self._follow(field)
        for index in range(0 if at is None else _unpack("<I", self.data, at)):
            place = at + 4 + 4 * index
            yield type(self)(self.data, place + _unpack("<I", self.data, place))


def _unpack(kind: str, data: bytes, at: int) -> int:
    return struct.unpack_from(kind, data, at)[0]
