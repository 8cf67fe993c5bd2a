"""Files as other exporters make them, for the runtime and for the page."""

import io
import warnings
import zipfile

import flatbuffers
import numpy as np
import tensorflow as tf
from keras_vit_export import description
from keras_vit_export.inspection import read_graph
from keras_vit_export.packing import pack

SHAPE = (4, 6, 3)
KERNEL = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")


def converted(last, dtype=tf.float32):
    """A `.tflite` as another exporter makes it: `last` of three sums over the image."""

    def serve(image):
        means = tf.reduce_mean(tf.cast(image, tf.float32), axis=(1, 2))
        return last(tf.linalg.matmul(means, KERNEL))

    spec = tf.TensorSpec((1, *SHAPE), dtype)
    function = tf.function(serve, input_signature=[spec]).get_concrete_function()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


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
