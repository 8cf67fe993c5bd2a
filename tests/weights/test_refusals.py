"""What is no whole checkpoint is refused, by the name of what is wrong with it."""

import dataclasses
import json
import pickle
import zipfile
import zlib

import numpy as np
import pytest

import keras_vit
from keras_vit.weights import load_checkpoint, save_timm
from tests.weights import dialects
from tests.weights.dialects import Size

OPTIONS = {"preprocessing": "imagenet", "num_heads": 3}


@pytest.fixture
def w(rng):
    return dialects.weights(rng, Size())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refused(path, match, **options):
    with pytest.raises(ValueError, match=match):
        load_checkpoint(path, **OPTIONS | options)


def test_no_file_and_no_checkpoint(tmp_path):
    refused(tmp_path / "none", "no file")
    refused(tmp_path, "no model.safetensors")
    for content in (b"", b"no checkpoint at all", b"\x00" * 100):
        (tmp_path / "other").write_bytes(content)
        refused(tmp_path / "other", "neither .npz nor safetensors|no Vision")


def test_pickles_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}))
    refused(tmp_path / "old.pth", "pickle, which can run code.*save_file")
    refused(tmp_path, "old.pth' is a pickle")
    dialects.zipped(tmp_path / "new.bin", {"archive/data.pkl": b"", "archive/0": b""})
    refused(tmp_path / "new.bin", "pickle, which can run code")


def test_missing_unexpected_and_misshaped_tensors_are_named(w, path):
    dialects.write_safetensors(path, {k: t for k, t in w.items() if k != "norm.bias"})
    refused(path, r"Missing: norm\.bias\. Unexpected: nothing")
    dialects.write_safetensors(path, w | {"attn_pool.latent": w["cls_token"]})
    refused(path, r"Missing: nothing\. Unexpected: attn_pool\.latent")
    dialects.write_safetensors(path, w | {"blocks.1.norm1.bias": w["cls_token"]})
    refused(path, r"blocks\.1\.norm1\.bias is \(1, 1, 12\), must be \(12,\)")
    dialects.write_safetensors(
        path, w | {"blocks.999999999.norm1.bias": w["cls_token"]}
    )
    refused(path, "names block 999999999")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value, w, path):
    w["blocks.1.mlp.fc2.weight"][3, 4] = value
    dialects.write_safetensors(path, w)
    refused(path, r"'blocks\.1\.mlp\.fc2\.weight' .* holds NaN or infinity")


def test_integers_are_refused(w, path):
    dialects.write_safetensors(path, w | {"cls_token": w["cls_token"].astype("int32")})
    refused(path, "'cls_token' .* must hold floats. Received: int32")


def test_what_nothing_says_is_asked_for(w, path):
    dialects.write_safetensors(path, w)
    refused(
        path, "preprocessing must be 'inception'.*or 'imagenet'", preprocessing=None
    )
    refused(path, "preprocessing must be one of", preprocessing="clip")
    refused(path, "num_heads is needed", num_heads=None)
    refused(path, "position_mode must be one of", position_mode="cubic")


def test_positions_of_no_square_need_their_image_size(rng, path):
    w = dialects.weights(rng, Size(grid=(2, 3)))
    dialects.write_safetensors(path, w)
    refused(path, "source_image_size may say")
    model = load_checkpoint(path, **OPTIONS, source_image_size=(8, 12))
    assert model.input_shape[1:3] == (8, 12)
    refused(path, "are not those of", source_image_size=(8, 8))


def test_a_config_that_contradicts_the_tensors_is_refused(w, tmp_path):
    arrays = dialects.hugging_face(w, Size())
    for field, value in (
        ("hidden_size", 16),
        ("num_hidden_layers", 3),
        ("patch_size", 2),
        ("image_size", 64),
        ("id2label", {"0": "a"}),
    ):
        dialects.write_hugging_face(tmp_path, arrays, Size(), **{field: value})
        with pytest.raises(ValueError, match="contradicts them|are not those of"):
            load_checkpoint(tmp_path)
    dialects.write_hugging_face(tmp_path, arrays, Size(), num_attention_heads=5)
    with pytest.raises(ValueError, match="num_heads must divide width"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json' is no JSON"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "field", "value", "match"),
    [
        (
            "config.json",
            "layer_norm_eps",
            "small",
            "say: norm_epsilon must be positive",
        ),
        ("config.json", "layer_norm_eps", 1e999, "norm_epsilon must be positive"),
        ("config.json", "num_attention_heads", "3", "num_heads must be an integer"),
        ("config.json", "hidden_act", 5, "hidden_act of config.json must be one of"),
        ("config.json", "id2label", ["a"], "can't be read: TypeError"),
        ("config.json", "id2label", {"0": ["a"]}, "id2label .* must be words"),
        ("config.json", "mlp_ratio", [4], "contradicts them: mlp_dim|can't be read"),
        ("preprocessor_config.json", "image_mean", 0.5, "can't be read: TypeError"),
        ("preprocessor_config.json", "image_std", ["a", "b", "c"], "std must be"),
        ("preprocessor_config.json", "image_std", [0, 1, 1], "std must be positive"),
        ("preprocessor_config.json", "rescale_factor", "1", "can't be read: TypeError"),
        ("preprocessor_config.json", "resample", 7, "resample .* must be one of 0, 2"),
    ],
)
def test_notes_of_wrong_types_are_refused(file, field, value, match, w, tmp_path):
    dialects.write_hugging_face(tmp_path, dialects.hugging_face(w, Size()), Size())
    load_checkpoint(tmp_path)
    notes = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(notes | {field: value}))
    with pytest.raises(ValueError, match=match):
        load_checkpoint(tmp_path)


def test_notes_that_describe_weights_which_are_not_there_are_refused(w, tmp_path):
    arrays = dialects.hugging_face(w, Size())
    dialects.write_hugging_face(tmp_path, arrays, Size(), use_swiglu_ffn=True)
    with pytest.raises(ValueError, match="says nothing of .*hidden_value/bias"):
        load_checkpoint(tmp_path)


def test_a_width_that_the_other_tensors_have_not_takes_no_memory(w, path, tmp_path):
    kernel = np.zeros((300_000, 3, 1, 1), "float32")
    dialects.write_safetensors(path, w | {"patch_embed.proj.weight": kernel})
    refused(path, r"must be \(1, 5, 300000\)")
    arrays = dialects.google(w, Size(), "scan")
    name = "Transformer/encoderblock/LayerNorm_0/scale"
    many = np.zeros((250_000, 1), "float32")
    np.savez(tmp_path / "model.npz", **arrays | {name: many})
    refused(tmp_path / "model.npz", "depth 250000", preprocessing=None)


def test_tensors_without_axes_or_numbers_are_refused(w, path, tmp_path):
    for name in ("head.weight", "pos_embed", "patch_embed.proj.weight", "norm.bias"):
        dialects.write_safetensors(path, w | {name: np.float32(1.0)})
        refused(path, r"no whole timm file|of other shapes")
        empty = np.zeros((0, 10**12), "float32")
        path.write_bytes(dialects.safetensors_bytes(w | {name: empty}))
        refused(path, f"'{name}' .* is empty")
    arrays = dialects.google(w, Size(), "scan")
    name = "Transformer/encoderblock/LayerNorm_0/scale"
    for odd in (np.float32(1.0), np.zeros((10**12, 0), "float32")):
        np.savez(tmp_path / "model.npz", **arrays | {name: odd})
        refused(tmp_path / "model.npz", "LayerNorm_0/scale", preprocessing=None)


def test_metadata_that_was_changed_is_refused(tiny, tmp_path):
    save_timm(keras_vit.build_vit(tiny()), tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for old, new in (
        (b'\\"depth\\": 2', b'\\"depth\\": 9'),
        (b'"std\\": [0.5', b'"std\\": [0.7'),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        refused(path, "metadata is damaged", preprocessing=None, num_heads=None)
    lie = json.dumps(dataclasses.asdict(tiny(image_size=8, depth=999_999_999)))
    metadata = {"keras_vit": lie, "keras_vit_crc32": str(zlib.crc32(lie.encode()))}
    w = dialects.weights(np.random.default_rng(0), Size())
    path.write_bytes(dialects.safetensors_bytes(w, metadata))
    refused(path, "contradicts them: .*depth is 999999999")


def test_shards_must_be_files_beside_their_index(w, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for listed, match in (
        ({"a": "../outside.safetensors"}, "files beside it"),
        ({"a": "absent.safetensors"}, "no file"),
        (["a"], "weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": listed}))
        refused(index, match)
    dialects.write_safetensors(tmp_path / "one.safetensors", w)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    refused(index, "differ in their tensors")


def test_pickled_objects_in_an_npz_are_not_loaded(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    refused(path, "'a.npy' holds pickled objects")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(50_000_000, "float32"))
    assert path.stat().st_size < 300_000
    refused(path, "would unpack to 200,000,128 bytes")


def test_an_npz_whose_header_lies_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, a=np.zeros((3, 4), "float32"))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("a.npy")
    for lie in (content.replace(b"(3, 4)", b"(9, 9)"), content[:40], content + b"1"):
        dialects.zipped(path, {"a.npy": lie})
        refused(path, "'a.npy'")
    dialects.zipped(path, {"a.npy": content})
    refused(path, "no Vision Transformer of a known format")


def test_names_that_come_twice_are_refused(w, path):
    content = dialects.safetensors_bytes(w)
    path.write_bytes(content.replace(b"blocks.0.norm1.bias", b"blocks.1.norm1.bias"))
    refused(path, "a name comes twice")
    scales = {f"blocks.0.{name}": w["norm.bias"] for name in ("gamma_1", "ls1.gamma")}
    dialects.write_safetensors(path, w | scales)
    refused(path, "'blocks.0.gamma_1' and 'blocks.0.ls1.gamma' are names of one")


def test_blocks_that_are_there_twice_are_refused(w, tmp_path):
    path = tmp_path / "model.npz"
    arrays = dialects.google(w, Size(), "scan")
    once = dialects.google(w, Size(), "big_vision")
    name = "Transformer/encoderblock_1/LayerNorm_0/bias"
    np.savez(path, **arrays | {name: once[name]})
    refused(path, f"'{name}' is there", preprocessing=None)


@pytest.mark.parametrize("kind", ["int32", "complex64", "bool", "V3"])
def test_an_npz_of_other_numbers_is_refused(kind, w, tmp_path):
    path = tmp_path / "model.npz"
    arrays = dialects.google(w, Size(), "vit_jax")
    np.savez(path, **arrays | {"cls": np.zeros((1, 1, 12), kind)})
    refused(path, "'cls' .* must hold floats", preprocessing=None)


def test_a_token_of_another_shape_gets_no_positions_added(rng, path):
    w = dialects.weights(rng, Size(registers=2))
    dialects.write_safetensors(path, w | {"cls_token": np.zeros((1, 1, 1), "float32")})
    refused(path, r"cls_token is \(1, 1, 1\), must be \(1, 1, 12\)")


def test_zeros_are_no_way_to_say_nothing(w, path):
    dialects.write_safetensors(path, w)
    for name in ("num_classes", "num_heads", "image_size", "patch_size"):
        refused(path, f"{name} must be an integer >= 1", **{name: 0})


def test_names_that_no_terminal_should_get_are_shown_quoted(w, path):
    dialects.write_safetensors(path, w | {"a\n\x1b[31m": w["norm.bias"]})
    refused(path, r"Unexpected: 'a\\n\\x1b\[31m'\.")


TIMMS_NOTES = {
    "num_classes": 5,
    "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.mark.parametrize(
    ("notes", "match"),
    [
        (
            {"model_args": {"act_layer": "quick_gelu"}},
            "act_layer of config.json must be",
        ),
        ({"global_pool": "map"}, "global_pool of config.json must be"),
        ({"model_args": {"depth": 3}}, "contradicts them: depth is 3"),
        ({"label_names": [["a"]] * 5}, "label_names of config.json must be words"),
    ],
)
def test_notes_of_timm_that_no_model_here_follows_are_refused(
    notes, match, w, tmp_path
):
    dialects.write_safetensors(tmp_path / "model.safetensors", w)
    (tmp_path / "config.json").write_text(json.dumps(TIMMS_NOTES | notes))
    refused(tmp_path, match, preprocessing=None)
