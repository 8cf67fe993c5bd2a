import dataclasses

import numpy as np
import pytest

from keras_vit import Preprocessing, ViTConfig
from keras_vit.config import VARIANTS, check_choice


def test_from_variant_takes_the_size_from_the_table_and_the_patch_from_the_name():
    config = ViTConfig.from_variant("S/8", image_size=64, num_classes=5)
    assert (config.width, config.depth, config.num_heads) == (384, 12, 6)
    assert (config.patch_size, config.image_size, config.grid) == (8, (64, 64), (8, 8))


@pytest.mark.parametrize("size", VARIANTS)
def test_any_field_of_a_variant_changes_by_keyword(size):
    config = ViTConfig.from_variant(
        f"{size}/8", image_size=(8, 24), num_classes=2, depth=3, drop_path=0.5
    )
    assert (config.depth, config.drop_path, config.image_size) == (3, 0.5, (8, 24))


def test_a_config_is_frozen(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().width = 16


def test_an_integer_size_is_the_side_of_a_square():
    assert Preprocessing(image_size=5).image_size == (5, 5)


def test_integers_of_numpy_become_plain_ones(tiny):
    config = tiny(num_classes=np.int64(5), image_size=np.int32(8), stem=(np.int8(2),))
    assert config == tiny(num_classes=5, image_size=8, stem=(2,))
    assert type(config.num_classes) is type(config.image_size[0]) is int


def test_a_number_for_mean_counts_for_every_channel(tiny):
    assert tiny(mean=0.25, channels=2).mean == (0.25, 0.25)


def test_positions_cover_prefix_tokens_unless_they_are_those_of_patches(tiny):
    assert tiny().positions_cover_prefix
    assert not tiny(positions="sincos_2d").positions_cover_prefix
    assert not tiny(class_token=False, pool="mean").positions_cover_prefix


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"patch_size": 5}, ["patch_size must divide image_size", "5", "(8, 12)"]),
        ({"num_heads": 3}, ["num_heads must divide width", "3", "8"]),
        ({"width": 0}, ["width", "0"]),
        ({"depth": True}, ["depth", "True"]),
        ({"pool": "tokn"}, ["pool must be one of token,", "'tokn'"]),
        ({"positions": "sin"}, ["positions must be one of", "sincos_2d"]),
        ({"activation": "swish"}, ["activation", "swiglu"]),
        ({"head_output": "soft"}, ["head_output", "softmax"]),
        ({"reduce_tokens": ((0, "prune"),)}, ["(block, kind, amount)"]),
        ({"reduce_tokens": "prune"}, ["reduce_tokens", "list or a tuple", "'prune'"]),
        ({"reduce_tokens": (0, "prune", 0.5)}, ["each of reduce_tokens", "0"]),
        ({"reduce_tokens": ((0, "merge", 2),)}, ["prune, pool", "'merge'"]),
        ({"reduce_tokens": ((0, "prune", 0.0),)}, ["(0, 1]", "0.0"]),
        ({"reduce_tokens": ((0, "prune", 1.5),)}, ["(0, 1]", "1.5"]),
        ({"reduce_tokens": ((0, "prune", "half"),)}, ["(0, 1]", "'half'"]),
        ({"reduce_tokens": ((0, "pool", 1),)}, ["side", ">= 2", "1"]),
        ({"reduce_tokens": ((1, "prune", 0.5),)}, ["before the last", "[1]"]),
        ({"reduce_tokens": ((7, "prune", 0.5),)}, ["0 to 0", "[7]"]),
        ({"reduce_tokens": ((-1, "prune", 0.5),)}, ["block", "-1"]),
        ({"depth": 1, "reduce_tokens": ((0, "pool", 2),)}, ["has no other", "[0]"]),
        (
            {"depth": 4, "reduce_tokens": ((1, "prune", 0.5), (1, "prune", 0.5))},
            ["once and in order", "[1, 1]"],
        ),
        ({"reduce_tokens": ((0, "pool", 2),)}, ["a grid of 2 x 3"]),
        (
            {"depth": 4, "reduce_tokens": ((0, "prune", 0.5), (1, "pool", 2))},
            ["'prune' leaves none", "(1, 'pool', 2)"],
        ),
        (
            {"image_size": 4, "reduce_tokens": ((0, "prune", 0.5),)},
            ["two patches to choose from"],
        ),
        (
            {
                "image_size": 16,
                "patch_dropout": 0.1,
                "reduce_tokens": ((0, "pool", 2),),
            },
            ["patch_dropout must be 0", "0.1"],
        ),
        ({"resize": "squash"}, ["resize", "stretch"]),
        ({"interpolation": "cubic"}, ["interpolation", "bicubic"]),
        ({"crop": 1.5}, ["crop", "1.5"]),
        ({"image_size": (8, 8, 8)}, ["image_size", "(8, 8, 8)"]),
        ({"image_size": 8.0}, ["image_size", "8.0"]),
        ({"drop_path": 1.0}, ["drop_path", "1.0"]),
        ({"drop_path": 0.1, "depth": 1}, ["drop_path", "depth >= 2"]),
        ({"std": 0.0}, ["std", "positive"]),
        ({"mean": (0.1, 0.2)}, ["mean", "channels=3"]),
        ({"mean": float("nan")}, ["mean", "nan"]),
        ({"std": float("nan")}, ["std", "nan"]),
        ({"mean": None}, ["mean", "None"]),
        ({"stem": 4}, ["stem", "4"]),
        ({"dropout": "0.1"}, ["dropout", "'0.1'"]),
        ({"num_registers": "2"}, ["num_registers", "'2'"]),
        ({"class_names": "abc"}, ["class_names", "'abc'"]),
        ({"class_names": (1, 2, 3)}, ["class_names", "1"]),
        ({"class_names": ("a", "a", "b")}, ["class_names must differ", "'a'"]),
        ({"class_names": ("a", "b\n", "c")}, ["class_names", "one line"]),
        ({"norm_epsilon": float("nan")}, ["norm_epsilon", "nan"]),
        ({"norm_epsilon": "1e-6"}, ["norm_epsilon", "'1e-6'"]),
        ({"crop": None}, ["crop", "None"]),
        ({"crop": "0.9"}, ["crop", "'0.9'"]),
        ({"layer_scale": float("nan")}, ["layer_scale", "nan"]),
        ({"layer_scale": "1e-5"}, ["layer_scale", "'1e-5'"]),
        ({"class_token": "no"}, ["class_token", "False, True", "'no'"]),
        ({"class_token": 2}, ["class_token", "2"]),
        ({"qk_norm": "no"}, ["qk_norm", "'no'"]),
        ({"norm_epsilon": 0.0}, ["norm_epsilon", "positive"]),
        ({"class_names": ("a",)}, ["class_names", "num_classes=3"]),
        ({"class_token": False}, ["pool='token' needs class_token"]),
        (
            {"pool": "token_and_mean", "norm_after_pool": True},
            ["pool='token_and_mean' needs norm_after_pool=False"],
        ),
        ({"norm_epsilon": float("inf")}, ["norm_epsilon must be positive", "inf"]),
        ({"distillation_token": True, "pool": "mean"}, ["distillation_token", "mean"]),
        ({"stem": (4, 4, 4)}, ["patch_size", "stem=(4, 4, 4)"]),
        ({"width": 6, "positions": "sincos_2d"}, ["sincos_2d", "width=6"]),
        (
            {"positions": "sincos_2d", "positions_cover_prefix": True},
            ["positions_cover_prefix", "sincos_2d"],
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_value(tiny, fields, words):
    with pytest.raises(ValueError) as error:
        tiny(**fields)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("Tiny/16", ["one of Ti,", "'Tiny'"]),
        ("S", ["patch side", "'S'"]),
        ("S/x", ["patch side", "'S/x'"]),
        ("S/5", ["patch_size must divide"]),
    ],
)
def test_a_wrong_variant_is_explained(variant, words):
    with pytest.raises(ValueError) as error:
        ViTConfig.from_variant(variant, image_size=224, num_classes=2)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_missing_and_unknown_fields_are_listed():
    with pytest.raises(ValueError, match=r"Missing: \['num_classes'\].*\['widht'\]"):
        ViTConfig.from_variant("S/16", image_size=224, widht=4)


def test_the_nearest_choice_comes_first():
    with pytest.raises(ValueError, match="one of mean, token"):
        check_choice("pool", "meen", ["token", "mean"])
    with pytest.raises(ValueError, match="resample must be one of 0, 2. Received: 7"):
        check_choice("resample", 7, [0, 2])


def test_tokens_are_counted_through_reductions(tiny):
    steps = [[0, "pool", 2], (1, "prune", 0.7), (np.int64(3), "prune", np.float64(0.5))]
    config = tiny(depth=5, image_size=(32, 48), reduce_tokens=steps)
    assert config.reduce_tokens == (
        (0, "pool", 2),
        (1, "prune", 0.7),
        (3, "prune", 0.5),
    )
    assert config.token_counts == (97, 25, 1 + 17 + 1, 1 + 17 + 1, 1 + 8 + 1)
    assert config.fused_share == (7 + 9) / 24
    assert tiny().token_counts == (7, 7) and tiny().fused_share == 0
    kept = tiny(reduce_tokens=((0, "prune", 1),))
    assert kept.token_counts == (7, 7) and kept.reduce_tokens == ((0, "prune", 1.0),)
