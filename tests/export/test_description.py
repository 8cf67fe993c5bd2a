"""The description inside a file, read field by field as other runtimes read it."""

import flatbuffers
import flatbuffers.table
import numpy as np
import pytest
from keras_vit_device.classifier import Classifier
from keras_vit_device.tflite.operations import read_graph
from keras_vit_export.description import BUFFER, describe, describe_classifier
from keras_vit_export.exporter import export

from keras_vit import build_vit


class Table:
    """A table of a flatbuffer; fields by their places in the schema."""

    def __init__(self, content, position=None):
        if position is None:
            position = int.from_bytes(content[:4], "little")
        self.table = flatbuffers.table.Table(content, position)

    def at(self, place):
        return self.table.Offset(4 + 2 * place)

    def text(self, place):
        return self.table.String(self.at(place) + self.table.Pos).decode()

    def byte(self, place):
        kind = flatbuffers.number_types.Uint8Flags
        return self.table.Get(kind, self.at(place) + self.table.Pos)

    def inner(self, place):
        position = self.table.Indirect(self.at(place) + self.table.Pos)
        return Table(self.table.Bytes, position)

    def tables(self, place):
        start, count = self.table.Vector(self.at(place)), 0
        count = self.table.VectorLen(self.at(place))
        places = [self.table.Indirect(start + 4 * index) for index in range(count)]
        return [Table(self.table.Bytes, position) for position in places]

    def floats(self, place):
        kind = flatbuffers.number_types.Float32Flags
        start = self.table.Vector(self.at(place))
        count = self.table.VectorLen(self.at(place))
        return [self.table.Get(kind, start + 4 * index) for index in range(count)]


@pytest.mark.parametrize(("channels", "colours"), [(3, 1), (1, 2), (4, None)])
def test_it_says_what_goes_in_and_what_comes_out(channels, colours):
    content = describe_classifier(channels)
    assert content[4:8] == b"M001"
    model = Table(content)
    assert model.text(7) == "1.0.0"
    (graph,) = model.tables(3)
    (image,), (probabilities,) = graph.tables(2), graph.tables(3)
    assert image.text(0) == "image"
    assert image.inner(3).byte(0) == 2  # ImageProperties
    colour = image.inner(3).inner(1)
    assert colour.byte(0) == colours if colours else not colour.at(0)
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.inner(1).floats(0), unit.inner(1).floats(1)) == ([0.0], [1.0])
    assert (image.inner(5).floats(0), image.inner(5).floats(1)) == ([255.0], [0.0])
    assert probabilities.inner(3).byte(0) == 1  # FeatureProperties
    (labels,) = probabilities.tables(6)
    assert labels.text(0) == "labels.txt"
    assert labels.byte(2) == 2  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("recipe", ["float32", "dynamic_int8"])
def test_every_exported_file_has_one_and_computes_the_same(
    tiny, randomize, rng, recipe
):
    model = randomize(build_vit(tiny(class_names=("a", "b", "c"))))
    content, report = export(model, recipe)
    graph = read_graph(content)
    named = {entry.name: entry.buffer for entry in graph.metadata}
    names = [name if isinstance(name, str) else name.decode() for name in named]
    assert names.count(BUFFER) == 1
    assert len(names) > 1, "what TensorFlow wrote is still there"
    found = graph.buffers[list(named.values())[names.index(BUFFER)]].data
    assert bytes(found) == describe_classifier(3)
    assert report.size_bytes == len(content)
    images = rng.integers(0, 256, (4, *model.input_shape[1:]))
    again = describe(content)  # once more changes no answer
    np.testing.assert_array_equal(
        Classifier(content).probabilities(images),
        Classifier(again).probabilities(images),
    )
