"""What lies beside the tensors, and what only some of them tell, becomes the model's."""

import json

import numpy as np
import pytest

import keras_vit
from keras_vit.weights import load_checkpoint, read_checkpoint
from keras_vit.weights.source import describe
from tests.weights import dialects
from tests.weights.dialects import Size, assert_gives


def timms_folder(folder, w, **notes):
    """A folder as the hub holds timm's models."""
    dialects.write_safetensors(folder / "model.safetensors", w)
    pixels = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "input_size": [3, 8, 8],
    }
    notes = {"num_classes": 5, "pretrained_cfg": pixels} | notes
    (folder / "config.json").write_text(json.dumps(notes))


def test_timms_notes_are_the_contract(rng, tmp_path):
    size = Size(tanh=True, mean=True)
    w = dialects.weights(rng, size)
    arguments = {"num_heads": 3, "act_layer": "gelu_tanh"}
    timms_folder(tmp_path, w, global_pool="avg", model_args=arguments)
    found = read_checkpoint(tmp_path)
    assert_gives(found.model, w, size, rng, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    config = keras_vit.config_of(found.model)
    kept = config.resize, config.interpolation, config.crop
    assert kept == ("crop", "bicubic", 0.9)
    assert "timm" in found.preprocessing


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("vit_base_patch16_gap_224", (16, "gelu")),
        ("vit_base_patch32_siglip_gap_256", (12, "gelu_tanh")),
        ("vit_base_patch16_siglip_gap_224", (12, "gelu")),
        ("vit_so400m_patch16_siglip_gap_256", (16, "gelu_tanh")),
        ("vit_so400m_patch14_siglip_gap_224", (16, "gelu")),
    ],
)
def test_timms_name_of_a_model_tells_heads_and_gelu(
    architecture, expected, rng, tmp_path
):
    sizes = {"width": 1152, "depth": 1, "mlp_dim": 4304}
    if "base" in architecture:
        sizes = {"width": 768, "depth": 12, "mlp_dim": 3072}
    small = Size(**sizes | {"depth": 1, "classes": 2}, class_token=False)
    w = dialects.weights(rng, small)
    block = {name: it for name, it in w.items() if name.startswith("blocks.0.")}
    for i in range(sizes["depth"]):  # all blocks the same array
        w |= {name.replace("s.0.", f"s.{i}."): it for name, it in block.items()}
    timms_folder(tmp_path, w, architecture=architecture, num_classes=2)
    source = describe(tmp_path)
    assert (source.fields["num_heads"], source.fields["activation"]) == expected


def test_heads_are_not_guessed_where_a_size_has_several(rng, tmp_path):
    w = dialects.weights(rng, Size(768, 12, 12, 3072, classes=2, class_token=False))
    path = tmp_path / "model.safetensors"
    dialects.write_safetensors(path, w)
    with pytest.raises(ValueError, match="num_heads is needed.*class_token=False"):
        describe(path, preprocessing="imagenet")


def test_norms_of_queries_tell_the_heads(rng, tmp_path):
    size = Size(qk_norm=True)
    w = dialects.weights(rng, size)
    timms_folder(tmp_path, w)
    model = load_checkpoint(tmp_path)
    assert_gives(model, w, size, rng, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_no_bias_of_queries_keys_and_values_is_zeros(rng, tmp_path):
    w = dialects.weights(rng, Size())
    biases = {name: np.zeros_like(it) for name, it in w.items() if "qkv.bias" in name}
    timms_folder(tmp_path, {name: it for name, it in w.items() if name not in biases})
    found = read_checkpoint(tmp_path, num_heads=3)
    assert_gives(found.model, w | biases, Size(), rng, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert found.remarks == ("queries, keys and values have no bias: zeros",)
    biases.popitem()
    timms_folder(tmp_path, {name: it for name, it in w.items() if name not in biases})
    with pytest.raises(ValueError, match=r"Missing: blocks\.0\.attn\.qkv\.bias\. "):
        read_checkpoint(tmp_path, num_heads=3)


# Of the hub: what facebook/deit-base-distilled-patch16-224, google/vit-base-patch16-224
# and facebook/dinov2-base say of pixels, and what ViTConfig says of the same.
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "DeiT": (
        IMAGENET
        | {
            "crop_size": 224,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "DeiTFeatureExtractor",
            "resample": 3,
            "size": 256,
        },
        ("stretch", "bicubic", 224 / 256, 0.485),
    ),
    "ViT": (
        {
            "do_normalize": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": 224,
        },
        ("stretch", "bilinear", 1.0, 0.5),
    ),
    "DINOv2": (
        IMAGENET
        | {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "BitImageProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
        },
        ("crop", "bicubic", 224 / 256, 0.485),
    ),
}


@pytest.mark.parametrize("kind", PROCESSORS.values(), ids=PROCESSORS)
def test_what_the_hub_says_of_pixels(kind, rng, tmp_path):
    processor, expected = kind
    w = dialects.weights(rng, Size())
    dialects.write_hugging_face(tmp_path, dialects.hugging_face(w, Size()), Size())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = read_checkpoint(tmp_path)
    config = keras_vit.config_of(found.model)
    got = config.resize, config.interpolation, config.crop, config.mean[0]
    assert got == expected
    assert any(
        "images of 224 pixels a side, the weights for 8" in it for it in found.remarks
    )
