"""Every published format gives the outputs of the papers' formulas in NumPy."""

import json

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit.weights import load_checkpoint, read_checkpoint
from tests.weights import dialects
from tests.weights.dialects import Size, assert_gives

TIMM = {
    "plain": Size(),
    "fc_norm": Size(averaged=True),
    "no_embed_class": Size(embed_class=False),
    "registers": Size(embed_class=False, registers=3, layer_scale=True),
    "DINOv2's own, registers": Size(registers=2, layer_scale=True),
    "q/k norm": Size(qk_norm=True),
    "distilled": Size(distilled=True),
    "DeiT-III": Size(embed_class=False, layer_scale=True),
    "SwiGLU": Size(swiglu=True, layer_scale=True),
    "no class token": Size(class_token=False, averaged=True),
    "mean behind the norm": Size(class_token=False),
    "positions of registers": Size(class_token=False, registers=4, covered=True),
    "positions of all tokens": Size(registers=2, covered=True),
    "one block": Size(depth=1, num_heads=1),
}


@pytest.mark.parametrize("size", TIMM.values(), ids=TIMM)
def test_timm(size, rng, tmp_path):
    w = dialects.weights(rng, size)
    dialects.write_safetensors(tmp_path / "model.safetensors", w)
    model = load_checkpoint(
        tmp_path / "model.safetensors",
        preprocessing="imagenet",
        num_heads=size.num_heads,
    )
    assert_gives(model, w, size, rng)


def test_the_names_of_dinov2_and_deit_iii_themselves(rng, tmp_path):
    size = Size(registers=2, layer_scale=True, swiglu=True)
    w = dialects.weights(rng, size)
    renamed = {"mask_token": np.zeros((1, size.width), "float32")}
    for name, tensor in w.items():
        name = name.replace("reg_token", "register_tokens")
        name = name.replace(".fc1.", ".w12.").replace(".fc2.", ".w3.")
        name = name.replace(".ls1.gamma", ".gamma_1")
        renamed[name] = tensor
    dialects.write_safetensors(tmp_path / "native", renamed)
    found = read_checkpoint(
        tmp_path / "native", preprocessing="imagenet", num_heads=size.num_heads
    )
    assert_gives(found.model, w, size, rng)
    assert any("mask_token" in remark for remark in found.remarks)


@pytest.mark.parametrize("dialect", ["vit_jax", "big_vision", "scan"])
def test_google(dialect, rng, tmp_path):
    size = Size(tanh=True, embed_class=dialect == "vit_jax")
    w = dialects.weights(rng, size)
    arrays = dialects.google(w, size, dialect)
    prefix = "opt/target/" if dialect == "vit_jax" else "params/"
    arrays = {prefix + name: it for name, it in arrays.items()}
    dialects.write_npz(tmp_path / "model.npz", arrays)
    found = read_checkpoint(tmp_path / "model.npz")
    assert_gives(found.model, w, size, rng, 0.5, 0.5)
    config = keras_vit.config_of(found.model)
    assert (config.mean, config.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (config.activation, config.norm_epsilon) == ("gelu_tanh", 1e-6)
    assert found.preprocessing.endswith("files of this kind have 'inception'")


GOOGLE = {
    "MAP": Size(tanh=True, class_token=False, attentive=True),
    "mean": Size(tanh=True, class_token=False),
}


@pytest.mark.parametrize("size", GOOGLE.values(), ids=GOOGLE)
def test_the_image_tower_of_two(size, rng, tmp_path):
    w = dialects.weights(rng, size)
    arrays = dialects.google(w, size, "big_vision")
    arrays = {f"params/img/{name}": it for name, it in arrays.items()}
    arrays |= {
        "params/txt/Embed_0/embedding": np.zeros((9, 4), "float32"),
        "params/t": np.zeros(1, "float32"),
        "opt/0/count": np.zeros((), "int32"),
    }
    dialects.write_npz(tmp_path / "model.npz", arrays)
    found = read_checkpoint(tmp_path / "model.npz")
    assert_gives(found.model, w, size, rng, 0.5, 0.5)
    assert len(found.remarks) == 3


def test_positions_that_are_computed_stand_in_no_file(rng, tmp_path):
    size = Size(tanh=True, class_token=False, sincos=True)
    w = dialects.weights(rng, size)
    path = tmp_path / "model.npz"
    dialects.write_npz(path, dialects.google(w, size, "big_vision"))
    with pytest.raises(ValueError, match="no positions, so source_image_size"):
        load_checkpoint(path)
    model = load_checkpoint(path, source_image_size=8)
    w["pos_embed"] = keras_vit.layers.sincos_2d(2, 2, 12)[None]
    assert_gives(model, w, size, rng, 0.5, 0.5)
    config = keras_vit.config_of(model)
    assert (config.positions, config.resize, config.crop) == (
        "sincos_2d",
        "crop",
        0.875,
    )


def test_bfloat16_of_big_vision(rng, tmp_path):
    import ml_dtypes

    size = Size(tanh=True, embed_class=False)
    w = dialects.weights(rng, size)
    w = {k: t.astype(ml_dtypes.bfloat16).astype("float32") for k, t in w.items()}
    arrays = {
        name: np.ascontiguousarray(it.astype(ml_dtypes.bfloat16)).view("V2")
        for name, it in dialects.google(w, size, "big_vision").items()
    }
    dialects.write_npz(tmp_path / "model.npz", arrays)
    model = load_checkpoint(tmp_path / "model.npz")
    assert_gives(model, w, size, rng, 0.5, 0.5)


def test_a_hidden_layer_before_the_head_is_kept(rng, tmp_path):
    size = Size(tanh=True)
    w = dialects.weights(rng, size)
    kernel, bias = rng.normal(size=(12, 12)), rng.normal(size=12)
    arrays = dialects.google(w, size, "vit_jax") | {
        "pre_logits/kernel": kernel.astype("float32"),
        "pre_logits/bias": bias.astype("float32"),
    }
    dialects.write_npz(tmp_path / "model.npz", arrays)
    model = load_checkpoint(tmp_path / "model.npz")
    pixels = rng.integers(0, 256, (2, 8, 8, 3)).astype("float32")
    bare = w | {"head.weight": np.eye(12), "head.bias": np.zeros(12)}
    pooled = dialects.forward(bare, size, (pixels / 255 - 0.5) / 0.5)
    expected = np.tanh(pooled @ kernel + bias) @ w["head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(model(pixels), expected, atol=1e-4)


HUGGING_FACE = {
    "ViT, 4": (Size(epsilon=1e-12), 4, "vit"),
    "ViT, 5": (Size(epsilon=1e-12), 5, "vit"),
    "DeiT": (Size(distilled=True, epsilon=1e-12), 4, "deit"),
    "DINOv2": (Size(layer_scale=True, both=True), 4, "dinov2"),
    "DINOv2, registers": (Size(layer_scale=True, registers=3, both=True), 4, "dinov2"),
    "DINOv2, SwiGLU": (Size(layer_scale=True, swiglu=True, both=True), 4, "dinov2"),
}


@pytest.mark.parametrize("kind", HUGGING_FACE.values(), ids=HUGGING_FACE)
def test_hugging_face(kind, rng, tmp_path):
    size, version, name = kind
    w = dialects.weights(rng, size)
    arrays = dialects.hugging_face(w, size, version, name)
    more = {"use_swiglu_ffn": True} if size.swiglu else {}
    dialects.write_hugging_face(tmp_path, arrays, size, **more)
    found = read_checkpoint(tmp_path)
    assert_gives(found.model, w, size, rng)
    config = keras_vit.config_of(found.model)
    assert config.class_names == tuple(f"class {i}" for i in range(5))
    assert config.norm_epsilon == size.epsilon
    assert "preprocessor_config.json" in found.preprocessing


def test_a_model_without_its_prefix_and_head_gets_a_new_head(rng, tmp_path):
    size = Size(head=False)
    w = dialects.weights(rng, size)
    arrays = {
        name.removeprefix("vit."): it
        for name, it in dialects.hugging_face(w, size).items()
    }
    arrays["pooler.dense.weight"] = np.zeros((12, 12), "float32")
    dialects.write_hugging_face(tmp_path, arrays, size)
    with pytest.raises(ValueError, match="no head, so num_classes"):
        read_checkpoint(tmp_path)
    found = read_checkpoint(tmp_path, num_classes=3, class_names=("a", "b", "c"))
    assert not np.asarray(found.model(np.ones((1, 8, 8, 3)))).any()
    assert any("pooler" in remark for remark in found.remarks)
    w |= {"head.weight": np.eye(12), "head.bias": np.zeros(12)}
    pooled = keras.Model(found.model.input, found.model.get_layer("pool").output)
    assert_gives(pooled, w, size, rng)


def test_a_head_for_as_many_classes_is_new_if_it_is_asked_for(rng, tmp_path):
    """Names of other classes must not stand over the file's own head."""
    size = Size()
    arrays = dialects.hugging_face(dialects.weights(rng, size), size)
    dialects.write_hugging_face(tmp_path, arrays, size)
    images = np.ones((1, 8, 8, 3))
    kept, new = (read_checkpoint(tmp_path, num_classes=n) for n in (None, 5))
    assert np.asarray(kept.model(images)).any()
    assert not np.asarray(new.model(images)).any()
    assert any("the head is new" in remark for remark in new.remarks)
    assert keras_vit.config_of(new.model).class_names == ()


def test_shards(rng, tmp_path):
    size = Size()
    w = dialects.weights(rng, size)
    arrays = dialects.hugging_face(w, size)
    dialects.write_hugging_face(tmp_path, arrays, size)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(arrays)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in files.items():
        part = {name: arrays[name] for name in chosen}
        dialects.write_safetensors(tmp_path / file, part)
    listed = {name: file for file, chosen in files.items() for name in chosen}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    for path in (tmp_path, index):
        assert_gives(load_checkpoint(path), w, Size(), rng, bound=1e-5)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves_become_float32(half, rng, tmp_path):
    import ml_dtypes

    kind = np.dtype(half if half == "float16" else ml_dtypes.bfloat16)
    w = dialects.weights(rng, Size())
    w = {name: it.astype(kind).astype("float32") for name, it in w.items()}
    path = tmp_path / "model.safetensors"
    halves = {name: it.astype(kind) for name, it in w.items()}
    path.write_bytes(dialects.safetensors_bytes(halves))
    model = load_checkpoint(path, preprocessing="imagenet", num_heads=3)
    assert_gives(model, w, Size(), rng)


def test_another_image_size_and_patch_size(rng, tmp_path):
    w = dialects.weights(rng, Size(grid=(4, 4)))
    path = tmp_path / "model.safetensors"
    dialects.write_safetensors(path, w)
    found = read_checkpoint(
        path, preprocessing="imagenet", num_heads=3, image_size=(24, 16), patch_size=8
    )
    config = keras_vit.config_of(found.model)
    assert (config.image_size, config.grid) == ((24, 16), (3, 2))
    assert found.model(np.ones((1, 24, 16, 3))).shape == (1, 5)
    assert [remark.split()[0] for remark in found.remarks] == ["positions", "patches"]
    positions = np.asarray(found.model.get_layer("positions").positions)
    np.testing.assert_array_equal(positions[:, :1], w["pos_embed"][:, :1])


def test_parameter_counts_are_the_papers(tmp_path):
    """Ti/16 from a file in AugReg's layout, strict in both directions."""
    size = Size(192, 12, 3, 768, 16, (14, 14), 1000, tanh=True)
    w = dialects.weights(np.random.default_rng(0), size)
    dialects.write_npz(tmp_path / "Ti.npz", dialects.google(w, size, "vit_jax"))
    model = load_checkpoint(tmp_path / "Ti.npz")
    assert model.count_params() == 5_717_416
