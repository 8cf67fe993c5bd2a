"""What a file is, its content says: whole files of every header, and none of others."""

import json
import re
import shlex

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


def refusal(path):
    with pytest.raises(ValueError, match=re.escape(path.name)) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


OTHERS = {  # of other kinds, and what is said of them
    "a.gguf": (b"GGUF" + bytes(30), "is a GGUF file"),
    "model.weights.h5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "is an HDF5 file"),
    "tf_model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(30), "is an ONNX model"),
    "flax_model.msgpack": (b"\x81\xa6params" + bytes(30), "is Flax' msgpack"),
    "saved_model.pb": (b"\x08\x01\x12" + bytes(30), "is a TensorFlow graph"),
    "vit.ckpt.data-00000-of-00001": (b"\x80\x02" + bytes(30), "TensorFlow checkpoint"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(30), "is a .tflite"),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "login.safetensors": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "gated.safetensors": (b'{"error": "Access is restricted"}', "is JSON"),
    "one.npy": (b"\x93NUMPY\x01\x00" + bytes(30), "is one array"),
    "weights.tar.gz": (b"\x1f\x8b\x08" + bytes(30), "is packed: unpack it first"),
    "nothing.safetensors": (b"", "it is empty"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_called_by_its_name(name, tmp_path):
    content, expected = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)
    if content:  # in a folder, too
        with pytest.raises(ValueError, match="no model.safetensors"):
            read(tmp_path)


ZIPS = {
    "model.keras": ({"config.json": b"", "model.weights.h5": b""}, "a Keras model"),
    "script.pt": ({"a/data.pkl": b"", "a/code/__torch__.py": b""}, "jit.load"),
    "program.pt2": ({"a/archive_format": b"pt2"}, "torch.export.load"),
    "whole.pth.tar": ({"a/data.pkl": b"", "a/data/0": b""}, "torch.load(f"),
    "photos.zip": ({"a.txt": b""}, "a ZIP archive without arrays"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_archive_of_another_kind_is_called_by_its_name(name, tmp_path):
    members, expected = ZIPS[name]
    dialects.zipped(tmp_path / name, members)
    assert expected in refusal(tmp_path / name)


def test_a_folder_says_what_it_holds_instead(tmp_path):
    for files, expected in (
        (("saved_model.pb", "x.bin"), "a SavedModel of TensorFlow"),
        (("_METADATA",), "of Flax' Orbax"),
        (("a.npz",), "Give the file: .*a.npz'"),
        (("optimizer.pt", "training_args.bin"), r"training_args.bin'\.$"),
        (("optimizer.pt", "epoch.ckpt"), "epoch.ckpt' is a pickle"),
        (
            ("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "a.bin"),
            r"/model.safetensors \S*model-1-of-2.bin \S*model-2-of-2.bin PyTorch",
        ),
    ):
        folder = tmp_path / files[-1]
        folder.mkdir()
        for name in files:
            (folder / name).write_bytes(b"\x80\x02")
        with pytest.raises(ValueError, match=expected):
            read(folder)


def test_an_index_of_pickles_gives_the_line_for_all(tmp_path):
    listed = {"a": "m-1.bin", "b": "m-2.bin"}
    for name in listed.values():
        dialects.zipped(tmp_path / name, {"a/data.pkl": b""})
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(ValueError, match=r"m-1.bin' is a pickle.* \S*1.bin \S*2.bin P"):
        read(index)


def test_the_line_that_converts_is_one_shell_command(tmp_path):
    path = tmp_path / "it's my net.pth"
    path.write_bytes(b"\x80\x02")
    line = re.search("python -c .*safetensors' .*pth'", refusal(path))[0]
    python, option, code, output, source = shlex.split(line)
    assert (python, option, source) == ("python", "-c", str(path))
    assert output == str(path.with_suffix(".safetensors"))
    compile(code, "line", "exec")
    assert "weights_only=True" in code


def test_a_download_that_was_cut_off_says_so(tmp_path):
    path = tmp_path / "model.safetensors"
    content = dialects.safetensors_bytes({"a": np.ones(50, "float32")})
    path.write_bytes(content[:-30])
    assert f"ends after {len(content) - 30} of {len(content)} bytes" in refusal(path)


def test_quantized_weights_are_called_so(tmp_path):
    path = tmp_path / "model.safetensors"
    text = json.dumps(
        {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    ).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"12")
    assert "quantized weights are not read" in refusal(path)
