"""What a file is, its content says: whole files of every header, and none of others."""

import json

import numpy as np
import pytest

import keras_vit
from keras_vit.weights import read_checkpoint, save_timm
from keras_vit.weights.tensors import read
from tests.weights import dialects

# Lengths of headers whose first bytes are those of a ZIP archive ("PK", also with a 3
# behind) and of pickles of protocols 2 to 5.
LOOKALIKES = (0x4B50, 0x034B50, 0x0280, 0x0380, 0x0480, 0x0580)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_header_of_any_length_is_that_of_safetensors(sharded, tmp_path):
    tensors = {"a": np.arange(3, dtype="float32")}
    path = tmp_path / "model.safetensors"
    asked = path
    if sharded:
        asked = tmp_path / "model.safetensors.index.json"
        asked.write_text(json.dumps({"weight_map": {"a": path.name}}))
    least = len(dialects.safetensors_bytes(tensors)) - 8 - 12
    for length in (*range(least, least + 256), *LOOKALIKES):
        path.write_bytes(dialects.safetensors_bytes(tensors, length=length))
        assert int.from_bytes(path.read_bytes()[:8], "little") == length
        np.testing.assert_array_equal(read(asked).tensors["a"], tensors["a"])


def test_what_we_write_comes_back_whatever_its_header_s_length(tiny, tmp_path):
    model, lengths = keras_vit.build_vit(tiny(num_classes=2)), set()
    for count in range(1, 8 * 32, 8):  # the library pads to eight bytes
        model.get_layer("head").class_names = ("a", "b" * count)
        folder = tmp_path / str(count)
        save_timm(model, folder)
        content = (folder / "model.safetensors").read_bytes()
        lengths.add(content[0])
        assert list(read(folder).tensors)
    assert len(lengths) == 32, "every length of a whole cycle"
    assert read_checkpoint(folder).model.count_params() == model.count_params()
