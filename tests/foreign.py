"""Files as other exporters make them, or of ours that were changed."""

import io
import warnings
import zipfile

import flatbuffers
import numpy as np
import tensorflow as tf
from keras_vit_device.tflite import metadata
from keras_vit_device.tflite.operations import read_graph
from keras_vit_export import description
from keras_vit_export.graph.packing import pack

SHAPE = (4, 6, 3)
KERNEL = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")


def converted(last, dtype=tf.float32, shape=(1, *SHAPE), integers=None):
    """A `.tflite` as another exporter makes it: `last` of three sums over the image.

    With `integers`, of that kind and measured on these images: `(kind, images)`.
    """

    def serve(image):
        means = tf.reduce_mean(tf.cast(image, tf.float32), axis=(1, 2))
        return last(tf.linalg.matmul(means, KERNEL))

    return converted_as(serve, shape, dtype, integers)


def converted_as(serve, shape, dtype=tf.float32, integers=None):
    """A `.tflite` of a function."""
    spec = tf.TensorSpec(shape, dtype)
    function = tf.function(serve, input_signature=[spec]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if integers:
        kind, images = integers
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([it[None]] for it in images)
        operations = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = operations
        converter.inference_input_type = converter.inference_output_type = kind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


def described(model, mean=(), std=(), labels="", calibrated=False):
    """The same with the metadata that MediaPipe's writers make."""
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT

    table = description._Table
    normalization = table("NormalizationOptions", mean=list(mean), std=list(std))
    units = [table("ProcessUnit", options_type=1, options=normalization)]
    image = table("TensorMetadata", name="image", process_units=units if std else [])
    score = {"name": "score"}
    if labels:
        file = table("AssociatedFile", name=labels, type=2)
        score["associated_files"] = [file]
    if calibrated:
        options = table("NormalizationOptions", mean=[], std=[])
        score["process_units"] = [table("ProcessUnit", options_type=2, options=options)]
    graph_metadata = table(
        "SubGraphMetadata",
        input_tensor_metadata=[image],
        output_tensor_metadata=[table("TensorMetadata", **score)],
    )
    builder = flatbuffers.Builder(512)
    root = table("ModelMetadata", name="other", subgraph_metadata=[graph_metadata])
    builder.Finish(root.write(builder), file_identifier=description.IDENTIFIER)
    graph = read_graph(model)
    entry, buffer = MetadataT(), BufferT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(graph.buffers)
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    graph.buffers.append(buffer)
    graph.metadata = [entry]
    return pack(graph)


def with_file(model, name, text):
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


def with_contract(content, **contract):
    """A file of ours with another contract; what becomes `None` is left out."""
    flatbuffer = content[: content.index(b"PK\x03\x04\x14\0\0\0\0\0")]
    read = metadata.read(content)
    kept = {key: it for key, it in (read.contract | contract).items() if it is not None}
    return metadata.attach(flatbuffer, read.class_names, kept)
