"""What a `.tflite` takes and gives, as MediaPipe reads it.

The TFLite Metadata format: a flatbuffer in one of the model's buffers says what its
tensors are and names the file of labels, which `metadata.py` puts behind the model.
"""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, MetadataT
from keras_vit_device.tflite.metadata import LABELS
from keras_vit_device.tflite.operations import read_graph

from keras_vit_export.graph.packing import pack

BUFFER = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# The oldest parser that knows all fields used here.
_PARSER = "1.0.0"
# Fields of each table in the order of metadata_schema.fbs (TensorFlow Lite Support); a
# union is two fields.
_FIELDS = {
    "AssociatedFile": ("name", "description", "type"),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space",),
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "Stats": ("max", "min"),
    "SubGraphMetadata": (
        "name",
        "description",
        "input_tensor_metadata",
        "output_tensor_metadata",
    ),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
}
# Values of its enumerations and unions.
_COLOURS = {3: 1, 1: 2}  # RGB and GRAYSCALE by number of channels; 0 is UNKNOWN
_FEATURE, _IMAGE = 1, 2
_NORMALIZATION = 1
_AXIS_LABELS = 2


def describe(model: bytes) -> bytes:
    """The same `.tflite`, a classifier of images, with its description inside.

    Args:
        model: The flatbuffer.
    """
    graph = read_graph(model)
    (first, *_), tensors = graph.subgraphs[0].inputs, graph.subgraphs[0].tensors
    entry, buffer = MetadataT(), BufferT()
    entry.name, entry.buffer = BUFFER, len(graph.buffers)
    content = describe_classifier(int(tensors[first].shape[-1]))
    buffer.data = np.frombuffer(content, np.uint8)
    graph.buffers.append(buffer)
    graph.metadata = [*(graph.metadata or []), entry]
    return pack(graph)


def describe_classifier(channels: int) -> bytes:
    """The flatbuffer of a description.

    Args:
        channels: Of the image.

    Source: metadata_schema.fbs of TensorFlow Lite Support, version 1.0.0.
    """
    colours = _Table("ImageProperties", color_space=_COLOURS.get(channels, 0))
    # Scaling is inside the model: pixels go in as they are.
    as_it_is = _Table("NormalizationOptions", mean=[0.0], std=[1.0])
    image = _Table(
        "TensorMetadata",
        name="image",
        description="Pixels in 0..255.",
        content=_Table(
            "Content", content_properties_type=_IMAGE, content_properties=colours
        ),
        process_units=[
            _Table("ProcessUnit", options_type=_NORMALIZATION, options=as_it_is)
        ],
        stats=_Table("Stats", max=[255.0], min=[0.0]),
    )
    labels = _Table(
        "AssociatedFile",
        name=LABELS,
        description="Name of each class, one a line.",
        type=_AXIS_LABELS,
    )
    numbers = _Table("FeatureProperties")
    probabilities = _Table(
        "TensorMetadata",
        name="probability",
        description="Probability of each class.",
        content=_Table(
            "Content", content_properties_type=_FEATURE, content_properties=numbers
        ),
        stats=_Table("Stats", max=[1.0], min=[0.0]),
        associated_files=[labels],
    )
    root = _Table(
        "ModelMetadata",
        name="Vision Transformer",
        description="What an image shows.",
        subgraph_metadata=[
            _Table(
                "SubGraphMetadata",
                input_tensor_metadata=[image],
                output_tensor_metadata=[probabilities],
            )
        ],
        min_parser_version=_PARSER,
    )
    builder = flatbuffers.Builder(512)
    builder.Finish(root.write(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Table:
    """A table of the schema: texts, bytes, tables, and lists of tables or floats."""

    def __init__(self, kind: str, /, **fields: Any):
        self._kind = kind
        self._fields = fields

    def write(self, builder: flatbuffers.Builder) -> int:
        """Writes what it points to, then itself; returns where."""
        slots = _FIELDS[self._kind]
        # Before the table begins: a flatbuffer can't nest what is being written.
        targets = {
            name: _write(builder, value)
            for name, value in self._fields.items()
            if not isinstance(value, int)
        }
        builder.StartObject(len(slots))
        for name, value in self._fields.items():
            if name in targets:
                builder.PrependUOffsetTRelativeSlot(slots.index(name), targets[name], 0)
            else:
                builder.PrependUint8Slot(slots.index(name), value, 0)
        return builder.EndObject()


def _write(builder: flatbuffers.Builder, value: "str | _Table | list") -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, _Table):
        return value.write(builder)
    if value and isinstance(value[0], float):
        return builder.CreateNumpyVector(np.array(value, np.float32))
    places = [table.write(builder) for table in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()
