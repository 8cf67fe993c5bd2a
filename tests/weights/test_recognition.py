"""Whatever stands before a model's names, it is the same model; and it is said."""

import itertools

import numpy as np
import pytest

import keras_vit
from keras_vit.weights import read_checkpoint
from tests.weights import dialects
from tests.weights.dialects import Size, assert_gives

OPTIONS = {"preprocessing": "imagenet", "num_heads": 3}
SIZE = Size(classes=3)


@pytest.fixture
def w(rng):
    return dialects.weights(rng, SIZE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def read(path, arrays, **options):
    dialects.write_safetensors(path, arrays)
    return read_checkpoint(path, **OPTIONS | options)


def before(prefix, arrays):
    return {f"{prefix}{name}": it for name, it in arrays.items()}


def without_head(w):
    return {name: it for name, it in w.items() if not name.startswith("head")}


def torchvision(w, size: Size, old: bool = False) -> dict[str, np.ndarray]:
    """As torchvision's VisionTransformer, or that before version 0.13, saves them."""
    found = {
        "class_token": w["cls_token"],
        "encoder.pos_embedding": w["pos_embed"],
        "conv_proj.weight": w["patch_embed.proj.weight"],
        "conv_proj.bias": w["patch_embed.proj.bias"],
        "encoder.ln.weight": w["norm.weight"],
        "encoder.ln.bias": w["norm.bias"],
    }
    names = {
        "norm1.": "ln_1.",
        "norm2.": "ln_2.",
        "attn.qkv.": "self_attention.in_proj_",
        "attn.proj.": "self_attention.out_proj.",
        "mlp.fc1.": "mlp.linear_1." if old else "mlp.0.",
        "mlp.fc2.": "mlp.linear_2." if old else "mlp.3.",
    }
    for i in range(size.depth):
        for theirs, name in names.items():
            for kind in ("weight", "bias"):
                it = w[f"blocks.{i}.{theirs}{kind}"]
                found[f"encoder.layers.encoder_layer_{i}.{name}{kind}"] = it
    for kind in ("weight", "bias") if size.head else ():
        found[f"heads.head.{kind}"] = w[f"head.{kind}"]
    return found


FORMATS = {"hugging_face": dialects.hugging_face, "torchvision": torchvision}
PREFIXES = (
    "module.",
    "model.",
    "module.model.",
    "model.backbone.",
    "student.backbone.",
    "ema_model.module.",
    "module.encoder.",
    "net.feature_extractor.trunk.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_trainers_put_before_names_is_left_out_and_said(prefix, w, rng, path):
    found = read(path, before(prefix, w))
    assert_gives(found.model, w, SIZE, rng)
    assert f"names are read without {prefix!r}" in found.remarks


@pytest.mark.parametrize("dialect", FORMATS)
@pytest.mark.parametrize("prefix", ["model.", "module.vit.", "encoder."])
def test_of_every_format(dialect, prefix, rng, path):
    size = Size(classes=3, epsilon=1e-12 if dialect == "hugging_face" else 1e-6)
    w = dialects.weights(rng, size)
    arrays = FORMATS[dialect](w, size)
    found = read(path, before(prefix, arrays))
    assert_gives(found.model, w, size, rng)
    assert f"names are read without {prefix!r}" in found.remarks
    # What every file of the format has is not worth a word.
    assert not any("without" in it for it in read(path, arrays).remarks)


def test_wrappers_between_names_are_left_out(w, rng, path):
    arrays = {
        f"module._orig_mod.{name}".replace(
            "blocks.1.", "blocks.1._checkpoint_wrapped_module."
        ): it
        for name, it in w.items()
    }
    arrays["n_averaged"] = np.array(7)
    arrays["criterion.weight"] = np.ones(3, "float32")
    found = read(path, arrays)
    assert_gives(found.model, w, SIZE, rng)
    said = " ".join(found.remarks)
    for word in ("_orig_mod.", "_checkpoint_wrapped", "module.", "n_averaged", "crit"):
        assert word in said


def test_torchvision_before_its_version_0_13(w, rng, path):
    found = read(path, torchvision(w, SIZE, old=True), preprocessing=None)
    assert_gives(found.model, w, SIZE, rng)
    config = keras_vit.config_of(found.model)
    rule = config.resize, config.interpolation, config.crop
    assert (found.format, *rule) == ("torchvision", "crop", "bilinear", 0.875)


@pytest.mark.parametrize(("patch", "grid"), [(16, (24, 24)), (14, (16, 16))])
def test_torchvision_of_swag_s_image_size_has_swag_s_pixels(patch, grid, rng, path):
    size = Size(patch=patch, grid=grid)
    w = dialects.weights(rng, size)
    found = read(path, torchvision(w, size), preprocessing=None)
    config = keras_vit.config_of(found.model)
    rule = config.image_size[0], config.interpolation, config.crop
    assert rule == (patch * grid[0], "bicubic", 1.0)


def test_torchvision_s_head_with_tanh(w, rng, path):
    kernel, bias = rng.normal(size=(9, 12)), rng.normal(size=9)
    arrays = torchvision(w, SIZE)
    arrays["heads.head.weight"] = rng.normal(size=(3, 9)).astype("float32")
    arrays["heads.pre_logits.weight"] = kernel.astype("float32")
    arrays["heads.pre_logits.bias"] = bias.astype("float32")
    model = read(path, arrays, preprocessing="inception").model
    pixels = rng.integers(0, 256, (2, 8, 8, 3)).astype("float32")
    bare = w | {"head.weight": np.eye(12), "head.bias": np.zeros(12)}
    pooled = dialects.forward(bare, SIZE, (pixels / 255 - 0.5) / 0.5)
    hidden = np.tanh(pooled @ kernel.T + bias)
    expected = hidden @ arrays["heads.head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(model(pixels), expected, atol=1e-4)


HEADS = {  # where the encoder is, and what the head is called there
    "fc": ("backbone.", "fc"),
    "in Lightning": ("model.backbone.", "model.classifier"),
    "beside": ("vit.", "classifier"),
    "behind dropout": ("", "head.1"),
}


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_one_linear_layer_is_the_head_whatever_its_name(kind, w, rng, path):
    prefix, head = kind
    arrays = before(prefix, without_head(w))
    arrays |= {f"{head}.{it}": w[f"head.{it}"] for it in ("weight", "bias")}
    found = read(path, arrays)
    assert_gives(found.model, w, SIZE, rng)
    assert f"the head is {head.removeprefix('model.')!r}" in found.remarks


@pytest.mark.parametrize("head", ["head", "fc"])
def test_a_head_without_bias_has_one_of_zeros(head, w, rng, path):
    arrays = without_head(w) | {f"{head}.weight": w["head.weight"]}
    found = read(path, arrays)
    assert_gives(found.model, w | {"head.bias": np.zeros(3)}, SIZE, rng)
    assert "'head' has no bias: zeros" in found.remarks


@pytest.mark.parametrize("dialect", FORMATS)
def test_a_head_of_another_name_in_other_formats(dialect, rng, path):
    size = Size(classes=3, epsilon=1e-12 if dialect == "hugging_face" else 1e-6)
    w = dialects.weights(rng, size)
    arrays = FORMATS[dialect](w, size)
    arrays = {
        name.replace("classifier.", "classifier.1.").replace("heads.head.", "fc."): it
        for name, it in arrays.items()
    }
    assert_gives(read(path, arrays).model, w, size, rng)


def test_dinov2_s_classifier_reads_two_vectors(rng, path):
    size = Size(both=True, layer_scale=True, classes=3)
    w = dialects.weights(rng, size)
    arrays = before("backbone.", without_head(w))
    arrays |= {f"linear_head.{it}": w[f"head.{it}"] for it in ("weight", "bias")}
    assert_gives(read(path, arrays).model, w, size, rng)
    # Under another name, the order of the two is anybody's.
    arrays |= {f"fc.{it}": arrays.pop(f"linear_head.{it}") for it in ("weight", "bias")}
    with pytest.raises(ValueError, match=r"fc\.weight \(3, 24\)"):
        read(path, arrays)


def sequential(rng, name, *widths):
    return {
        f"{name}.{2 * i}.weight": rng.normal(size=(wide, narrow)).astype("float32")
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths))
    }


UNREAD = {
    "hidden layers": ("", lambda rng: sequential(rng, "head", 12, 7, 3)),
    "beside": ("vit.", lambda rng: sequential(rng, "classifier", 12, 7, 3)),
    "a norm before": (
        "backbone.",
        lambda rng: sequential(rng, "fc", 12, 3) | {"fc.norm.weight": np.ones(12)},
    ),
    "two heads": (
        "",
        lambda rng: {
            "head.weight": np.ones((9, 12)),
            "head.bias": np.ones(9),
            "fc.weight": np.ones((3, 9)),
        },
    ),
    "other parts": ("model.", lambda rng: {"projector.0.weight": np.ones((9, 12))}),
    "of pretraining": (
        "backbone.",
        lambda rng: (
            sequential(rng, "head.mlp", 12, 20, 6)
            | {"head.last_layer.weight_v": np.ones((50, 6))}
        ),
    ),
}


@pytest.mark.parametrize("kind", UNREAD.values(), ids=UNREAD)
def test_a_head_that_no_model_here_has_is_named_and_left_out_for_a_new_one(
    kind, w, rng, path
):
    prefix, make = kind
    more = {name: np.float32(it) for name, it in make(rng).items()}
    arrays = before(prefix, without_head(w)) | more
    with pytest.raises(
        ValueError, match="in no file.*num_classes leaves it"
    ) as refusal:
        read(path, arrays)
    found = read(path, arrays, num_classes=4)
    assert found.model.output_shape == (None, 4)
    said = " ".join(found.remarks)
    for name in more:
        assert name in str(refusal.value)
        assert name in said


def test_of_two_models_one_is_asked_for(w, rng, path):
    other = dialects.weights(rng, SIZE)
    arrays = before("student.module.backbone.", without_head(other))
    arrays |= before("student.", sequential(rng, "head.mlp", 12, 9, 4))
    arrays |= before("teacher.backbone.", w)
    with pytest.raises(ValueError, match="'student.module.*, 'teacher.*which"):
        read(path, arrays)
    for name in ("teacher", "teacher.", "teacher.backbone.", "teacher.backbone"):
        found = read(path, arrays, prefix=name)
        assert "another model left out: 'student.'" in found.remarks
    assert_gives(found.model, w, SIZE, rng)
    with pytest.raises(ValueError, match=r"no file: head\.mlp\.0\.weight"):
        read(path, arrays, prefix="student")
    for name in ("", "teach", "ema"):
        with pytest.raises(ValueError, match="must say which. Received: '"):
            read(path, arrays, prefix=name)


def test_a_model_beside_its_average(w, rng, path):
    other = dialects.weights(rng, SIZE)
    arrays = other | before("ema.", w)
    assert_gives(read(path, arrays, prefix="ema").model, w, SIZE, rng)
    assert_gives(read(path, arrays, prefix="").model, other, SIZE, rng)


def test_a_scaling_of_pixels_in_the_file_must_be_the_model_s(w, rng, path):
    for scale, name in ((1.0, "normalize."), (255.0, "pixel_")):
        pixels = {
            f"{name}mean": np.reshape(dialects.MEAN * scale, (3, 1, 1)),
            f"{name}std": np.float32(dialects.STD * scale),
        }
        found = read(path, before("model.", w) | pixels)
        assert_gives(found.model, w, SIZE, rng)
        assert any(f"{name}mean, {name}std left out" in it for it in found.remarks)
        with pytest.raises(
            ValueError, match=rf"itself: {name}mean is .*but mean is \["
        ):
            read(path, before("model.", w) | pixels, preprocessing="inception")


def test_a_decoder_is_left_out_by_name(w, path):
    decoder = {
        "decoder_embed.weight": w["head.weight"],
        "decoder_pos_embed": w["pos_embed"],
    }
    found = read(path, without_head(w) | decoder, num_classes=2)
    assert sum("a decoder" in it for it in found.remarks) == 2


def test_adapters_are_to_be_merged_first(w, path):
    lora = {"blocks.0.attn.qkv.lora_A.default.weight": w["head.weight"]}
    for arrays in (lora, before("base_model.model.", w | lora)):
        with pytest.raises(ValueError, match="adapters of LoRA .*merge_and_unload"):
            read(path, arrays)


def test_two_tensors_of_one_name_are_refused(w, path):
    arrays = before("model.", w) | {"head.weight": w["head.weight"]}
    with pytest.raises(ValueError, match="'head.weight' and 'model.head.weight' are"):
        read(path, arrays)


ZERO = {
    "zeros": (0.0, 0.0, "the head is zeros: it answers every class alike"),
    "its biases differ": (0.0, None, "the head is zeros: it answers every image alike"),
    "rows all the same": (
        None,
        0.0,
        "the head has the same weights for every class: it answers every class alike",
    ),
}


@pytest.mark.parametrize("kind", ZERO.values(), ids=ZERO)
def test_a_head_that_tells_no_classes_apart_is_told(kind, w, rng, path):
    weight, bias, expected = kind
    w["head.weight"] = np.repeat(w["head.weight"][:1], 3, 0)
    w["head.weight"] *= 1.0 if weight is None else weight
    w["head.bias"] *= 1.0 if bias is None else bias
    (remark,) = read(path, w).remarks
    assert (
        remark == f"{expected} and wants training (keras-vit train --from MODEL.keras)"
    )


def test_a_head_of_zeros_of_google_s_is_told(rng, tmp_path):
    size = Size(tanh=True)
    w = dialects.weights(rng, size)
    w |= {name: np.zeros_like(w[name]) for name in ("head.weight", "head.bias")}
    dialects.write_npz(tmp_path / "m.npz", dialects.google(w, size, "vit_jax"))
    (remark,) = read_checkpoint(tmp_path / "m.npz").remarks
    assert remark.startswith("the head is zeros: it answers every class alike")


def test_weights_as_before_training_are_told(w, path):
    for name in w:
        if "norm" in name:
            w[name] = np.full_like(w[name], name.endswith("weight"))
    w["pos_embed"] *= 0
    said = read(path, w).remarks
    assert [it.split(":")[0] for it in said] == [
        "all norms are 1 and 0, as before the first step of training",
        "the positions are all zeros",
    ]
    w["blocks.1.norm1.bias"][3] = 1e-4
    assert len(read(path, w).remarks) == 1
