"""timm's and torchvision's own models against ours, with the same random weights, both ways.

Runs where the extra `parity` is installed (`pip install '.[parity]'`).
"""

import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import keras_vit
from keras_vit.features import feature_model
from keras_vit.resampling import resize_patches, resize_positions
from keras_vit.weights import load_checkpoint, save_timm

pytestmark = pytest.mark.skipif(
    not all(
        importlib.util.find_spec(name) for name in ("timm", "torch", "torchvision")
    ),
    reason="needs the extra 'parity': timm, torch and torchvision",
)
# Largest difference of logits or features, relative to the largest of them.
BOUND = 5e-6
DINOV2 = "vit_small_patch14_dinov2"
TI = "vit_tiny_patch16_224"
MEAN = {"global_pool": "avg", "fc_norm": False, "class_token": False}
MODELS = {
    "Ti/16": (TI, {}, None),
    "S/32": ("vit_small_patch32_224", {}, None),
    "B/16": ("vit_base_patch16_224", {}, None),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", {}, None),
    "registers, LayerScale": ("vit_small_patch14_reg4_dinov2", {"img_size": 112}, None),
    "DINOv2 S/14": (DINOV2, {"img_size": 112}, None),
    "DINOv2 S/14 at 140 x 84": (DINOV2, {"img_size": 112}, (140, 84)),
    "DINOv2 S/14 at 84": (DINOV2, {"img_size": 112}, (84, 84)),
    "fc_norm": (TI, {"global_pool": "avg"}, None),
    "q/k norm": (TI, {"qk_norm": True}, None),
    "no_embed_class": (TI, {"no_embed_class": True}, None),
    "mean behind the norm": (TI, {**MEAN, "act_layer": "gelu_tanh"}, None),
    "positions of registers": (TI, {**MEAN, "reg_tokens": 4}, None),
    "no bias": (TI, {**MEAN, "qkv_bias": False}, None),
}


def timm_side(task, folder, text=""):
    script = pathlib.Path(__file__).with_name("timm_side.py")
    done = subprocess.run(
        [sys.executable, script, task, folder],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm")
    timm_side("write", folder, json.dumps(list(MODELS.values())))
    return dict(zip(MODELS, (folder / str(i) for i in range(len(MODELS))), strict=True))


def relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", MODELS)
def test_ours_gives_what_timms_gives(name, written):
    _, _, size = MODELS[name]
    sides = np.load(written[name] / "sides.npz")
    headless = name.startswith(("DINOv2", "registers"))
    options = {"num_classes": 2} if headless else {}
    ours = load_checkpoint(written[name], image_size=size, **options)
    if headless:
        ours = feature_model(ours, "token")
    difference = relative(ours(sides["pixels"]), sides["output"])
    print(f"{name}: {difference:.1e}")
    assert difference <= BOUND


SIZE_B = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
TORCHVISION = {
    "B/16": ({"image_size": 224, "patch_size": 16, **SIZE_B}, None),
    "B/32 at 160": ({"image_size": 224, "patch_size": 32, **SIZE_B}, 160),
    "tanh in the head": (
        {"image_size": 64, "patch_size": 32, **SIZE_B, "representation_size": 99},
        None,
    ),
}


def test_ours_gives_what_torchvisions_gives(tmp_path):
    timm_side("torchvision", tmp_path, json.dumps(list(TORCHVISION.values())))
    for number, (name, (_, side)) in enumerate(TORCHVISION.items()):
        folder = tmp_path / str(number)
        sides = np.load(folder / "sides.npz")
        # Their pixels are of mean and std 0.5 here.
        ours = load_checkpoint(folder, image_size=side, preprocessing="inception")
        difference = relative(ours(sides["pixels"]), sides["output"])
        print(f"{name}: {difference:.1e}")
        assert difference <= BOUND, name


PICKLES = (
    "raw.pth",
    "model.pth",
    "timm.pth.tar",
    "tutorial.pt",
    "dino.pth",
    "lightning.ckpt",
    "old.pth",
    "script.pt",
    "program.pt2",
    "",  # the folder, with two shards
)


@pytest.fixture(scope="module")
def pickles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pickles")
    timm_side("pickles", folder)
    return folder


def converted(path):
    """What the line that is printed for a pickle does, and the file that it writes."""
    with pytest.raises(ValueError, match="which can run code") as refusal:
        load_checkpoint(path)
    line = re.search(r"python -c .*?(?= PyTorch refuses|$)", str(refusal.value))[0]
    python, *rest = shlex.split(line)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *rest], capture_output=True, text=True, check=False
    )
    return done, pathlib.Path(rest[2])


@pytest.mark.parametrize("name", PICKLES)
def test_the_line_for_a_pickle_makes_a_checkpoint_of_it(name, pickles):
    done, output = converted(pickles / name)
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_checkpoint(output, preprocessing="imagenet", num_heads=3)
    weights = {variable.path: np.asarray(variable) for variable in found.weights}
    assert (weights["head/logits/kernel"] == 1).all()
    if not name.startswith(("script", "program")):
        gamma, beta = (weights[f"final_norm/{it}"] for it in ("gamma", "beta"))
        np.testing.assert_array_equal(gamma, beta)
    output.unlink()


def test_a_whole_model_is_refused_by_the_line_and_its_message_says_what_then(pickles):
    done, output = converted(pickles / "whole.pt")
    assert done.returncode != 0
    assert "Weights only load failed" in done.stderr
    assert not output.exists()


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resized")
    timm_side("resize", folder)
    return np.load(folder / "resized.npz")


@pytest.mark.parametrize(
    "mode", ["bicubic_antialias", "bicubic", "bicubic_corners", "dinov2"]
)
@pytest.mark.parametrize("grid", [(9, 5), (20, 23)])
def test_positions_are_resized_as_torch_does(mode, grid, resized):
    expected = resized[f"{mode} {grid[0]} {grid[1]}"]
    got = resize_positions(resized["positions"], (14, 14), grid, mode)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_patches_are_resized_as_timm_does(resized):
    got = resize_patches(resized["kernel"], 20)
    np.testing.assert_allclose(got, resized["kernel of 20"], atol=1e-4)


KINDS = {
    "plain": {},
    "mean": {"pool": "mean", "norm_after_pool": True},
    "distilled": {"distillation_token": True},
    "registers": {
        "num_registers": 2,
        "positions_cover_prefix": False,
        "layer_scale": 0.1,
    },
    "q/k norm": {"qk_norm": True, "activation": "gelu_tanh"},
    "swiglu": {"activation": "swiglu", "layer_scale": 0.1, "positions": "sincos_2d"},
}


def test_timm_reads_what_we_write(tiny, randomize, tmp_path):
    models = {}
    for name, fields in KINDS.items():
        config = tiny(width=64, num_heads=4, mlp_dim=96, **fields)
        models[name] = randomize(keras_vit.build_vit(config))
        save_timm(models[name], tmp_path / name.replace("/", " "))
    timm_side("read", tmp_path)
    for name, ours in models.items():
        sides = np.load(tmp_path / f"{name.replace('/', ' ')}.npz")
        difference = relative(ours(sides["pixels"]), sides["output"])
        print(f"{name}: {difference:.1e}")
        assert difference <= 1e-4, name
