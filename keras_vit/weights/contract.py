"""What a published model expects of pixels, and what else its notes say of it.

Tensors don't tell how images were scaled, nor which GELU or epsilon was used. Notes do:
`config.json` and `preprocessor_config.json` of Hugging Face, `config.json` of timm, the
metadata of our own files. What they say of shapes must be what the tensors say.
"""

import dataclasses
import json
import zlib
from typing import Any

from keras_vit.config import ViTConfig, check_choice
from keras_vit.weights.formats.timm import said_by_architecture

# Of AugReg: https://arxiv.org/abs/2106.10270, published code, `input_pipeline.py`.
_INCEPTION = {
    "mean": 0.5,
    "std": 0.5,
    "resize": "stretch",
    "interpolation": "bilinear",
    "crop": 1.0,
}
# Of timm's DeiT, `deit.py`; DeiT's own code keeps 87.5 % in place of 90.
_IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "resize": "crop",
    "interpolation": "bicubic",
    "crop": 0.9,
}
# Of big_vision's ImageNet-1k models: https://arxiv.org/abs/2205.01580, published code,
# `configs/vit_s16_i1k.py`.
_BIG_VISION = {**_INCEPTION, "resize": "crop", "crop": 0.875}
# Of torchvision's `ViT_B_16_Weights`: IMAGENET1K_V1 (L/16 alone keeps 224 of 242 pixels
# in place of 256), and what was fine-tuned after SWAG.
_TORCHVISION = {**_IMAGENET, "interpolation": "bilinear", "crop": 0.875}
PREPROCESSINGS = {
    "inception": _INCEPTION,
    "imagenet": _IMAGENET,
    "big_vision": _BIG_VISION,
    "torchvision": _TORCHVISION,
    "torchvision_swag": {**_IMAGENET, "crop": 1.0},
}
# Fields that tensors show too.
_SHOWN = (
    "image_size",
    "channels",
    "patch_size",
    "num_classes",
    "width",
    "depth",
    "mlp_dim",
    "class_token",
    "distillation_token",
    "num_registers",
    "qk_norm",
)
# Pillow's numbers, which Hugging Face's files hold.
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "relu": "relu",
}
# timm's poolings, by what it calls them; "" is none, for features.
_POOLS = {"token": "token", "avg": "mean", "": None}


@dataclasses.dataclass(frozen=True)
class Notes:
    """What the notes of a checkpoint say.

    Attributes:
        fields: Fields of `ViTConfig`.
        shapes: What they say of the tensors; by field, `num_classes` among them.
        preprocessing: Fields that concern pixels, or `None` if nothing says.
        source: Where the preprocessing is from, in words.
        architecture: timm's name of the model, or `""`.
        remarks: What a user should know, a line each.
    """

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    shapes: dict[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: dict[str, Any] | None = None
    source: str = ""
    architecture: str = ""
    remarks: tuple[str, ...] = ()


def read_notes(
    notes: dict[str, dict[str, Any]], preprocessing: str | None, usual: str | None
) -> Notes:
    """What lies beside the tensors, or in the file.

    Args:
        notes: As `tensors.read` gives them.
        preprocessing: A name of `PREPROCESSINGS` that overrules them, or `None`.
        usual: The one that holds where neither they nor the caller say, or `None`.

    Raises:
        ValueError: If nothing says how pixels are scaled, or a note says what no model
            here does.
    """
    ours = notes.get("__metadata__", {})
    config = notes.get("config.json", {})
    try:
        if "keras_vit" in ours:
            found = _of_ours(ours)
        elif "pretrained_cfg" in config or "architecture" in config:
            found = _of_timm(config)
        else:
            found = _of_hugging_face(config, notes.get("preprocessor_config.json"))
    except (
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(
            f"What lies beside the tensors can't be read: {type(error).__name__} {error}"
        ) from error
    if preprocessing is not None:
        check_choice("preprocessing", preprocessing, PREPROCESSINGS)
        return dataclasses.replace(
            found,
            preprocessing=PREPROCESSINGS[preprocessing],
            source=f"preprocessing={preprocessing!r}",
        )
    if found.preprocessing is None and usual is not None:
        return dataclasses.replace(
            found,
            preprocessing=PREPROCESSINGS[usual],
            source=f"nothing says it; files of this kind have {usual!r}",
        )
    if found.preprocessing is None:
        raise ValueError(
            "Nothing says how pixels are scaled (AugReg and DeiT have the same tensors), "
            "so preprocessing must be 'inception' (mean and std 0.5) or 'imagenet' (or "
            "'big_vision', mean and std 0.5, the middle 87.5 %). Received: None"
        )
    return found


def check_agreement(said: dict[str, Any], shown: dict[str, Any]) -> None:
    """Checks what notes say of shapes against what the tensors show.

    Raises:
        ValueError: If they contradict each other, with each such field.
    """
    differing = [
        f"{name} is {said[name]!r}, in the tensors {shown[name]!r}"
        for name in said
        if None not in (said[name], shown.get(name)) and said[name] != shown[name]
    ]
    if differing:
        raise ValueError(
            f"What lies beside the tensors contradicts them: {'; '.join(differing)}."
        )


def our_metadata(config: ViTConfig) -> dict[str, str]:
    """What our files say of themselves, with a sum that shows if it was changed."""
    text = json.dumps(dataclasses.asdict(config))
    return {"keras_vit": text, "keras_vit_crc32": str(zlib.crc32(text.encode()))}


def _of_ours(metadata: dict[str, str]) -> Notes:
    text = metadata["keras_vit"]
    if str(zlib.crc32(text.encode())) != metadata["keras_vit_crc32"]:
        raise ValueError("The file's metadata is damaged: its checksum is another.")
    fields = dataclasses.asdict(ViTConfig(**json.loads(text)))
    pixels = {name: fields.pop(name) for name in _INCEPTION}
    shapes = {name: fields.pop(name) for name in _SHOWN}
    return Notes(fields, shapes, pixels, "the file's own metadata")


def _of_timm(config: dict[str, Any]) -> Notes:
    pretrained = config.get("pretrained_cfg", config)
    arguments = config.get("model_args") or {}
    shapes = {
        "num_classes": config.get("num_classes", pretrained.get("num_classes")) or None,
        "width": arguments.get("embed_dim"),
        "depth": arguments.get("depth"),
        "patch_size": arguments.get("patch_size"),
        "image_size": _square(
            arguments.get("img_size") or pretrained.get("input_size", [None])[1:]
        ),
    }
    architecture = str(config.get("architecture", ""))
    fields = said_by_architecture(architecture)
    if arguments.get("num_heads") is not None:
        fields["num_heads"] = arguments["num_heads"]
    # SwiGLU's "silu" shows in the tensors.
    if arguments.get("act_layer") not in (None, "silu"):
        name = arguments["act_layer"]
        check_choice("act_layer of config.json", name, _ACTIVATIONS)
        fields["activation"] = _ACTIVATIONS[name]
    pool = arguments.get("global_pool", config.get("global_pool", ""))
    check_choice("global_pool of config.json", pool, _POOLS)
    if _POOLS[pool]:
        fields["pool"] = _POOLS[pool]
    if names := config.get("label_names") or pretrained.get("label_names"):
        fields["class_names"] = _words("label_names", names)
    pixels = None
    if "mean" in pretrained and "std" in pretrained:
        modes = {"center": "crop", "squash": "stretch", None: "crop"}
        mode = pretrained.get("crop_mode")
        check_choice("crop_mode of config.json", mode, modes)
        pixels = {
            "mean": tuple(pretrained["mean"]),
            "std": tuple(pretrained["std"]),
            "resize": modes[mode],
            "interpolation": pretrained.get("interpolation", "bicubic"),
            "crop": pretrained.get("crop_pct", 0.875),
        }
    source = "timm's config.json beside the file"
    return Notes(fields, shapes, pixels, source, architecture)


def _of_hugging_face(config: dict, preprocessor: dict | None) -> Notes:
    fields = {}
    if "hidden_act" in config:
        check_choice("hidden_act of config.json", config["hidden_act"], _ACTIVATIONS)
        fields["activation"] = _ACTIVATIONS[config["hidden_act"]]
    if config.get("use_swiglu_ffn"):
        fields["activation"] = "swiglu"
    for theirs, ours in (
        ("layer_norm_eps", "norm_epsilon"),
        ("num_attention_heads", "num_heads"),
    ):
        if theirs in config:
            fields[ours] = config[theirs]
    names = config.get("id2label")
    if names:
        ordered = [names[str(index)] for index in range(len(names))]
        fields["class_names"] = _words("id2label", ordered)
    shapes = {
        "width": config.get("hidden_size"),
        "depth": config.get("num_hidden_layers"),
        "patch_size": config.get("patch_size"),
        "channels": config.get("num_channels"),
        "mlp_dim": None if config.get("use_swiglu_ffn") else _mlp_dim(config),
        "num_registers": config.get("num_register_tokens"),
        "num_classes": len(names) if names else None,
        "image_size": _square(config.get("image_size")),
    }
    source = "preprocessor_config.json beside the file"
    if preprocessor is None:
        return Notes(fields, shapes)
    pixels, side = _pixels(preprocessor), _side(preprocessor)
    remarks = []
    if shapes["image_size"] and side and shapes["image_size"] != (side, side):
        remarks.append(
            f"preprocessor_config.json is for images of {side} pixels a side, the "
            f"weights for {shapes['image_size'][0]}; image_size says which the model has"
        )
    return Notes(fields, shapes, pixels, source, remarks=tuple(remarks))


def _words(field: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) for name in names
    ):
        raise ValueError(f"{field} of config.json must be words. Received: {names!r}")
    return tuple(names)


def _mlp_dim(config: dict) -> int | None:
    if "mlp_ratio" in config:
        return int(config["hidden_size"] * config["mlp_ratio"])
    return config.get("intermediate_size")


def _pixels(processor: dict) -> dict[str, Any]:
    scaled = processor.get("do_rescale", True)
    factor = processor.get("rescale_factor", 1 / 255)
    if not scaled or abs(factor * 255 - 1) > 1e-3:
        raise ValueError(
            "preprocessor_config.json must scale pixels to 0..1. Received: "
            f"do_rescale={scaled}, rescale_factor={factor}"
        )
    normalized = processor.get("do_normalize", True)
    resample = processor.get("resample", 2)
    check_choice("resample of preprocessor_config.json", resample, _RESAMPLE)
    size, cropped = _sizes(processor), _crop(processor)
    side = size.get("shortest_edge", size.get("height"))
    return {
        "mean": tuple(processor["image_mean"]) if normalized else 0.0,
        "std": tuple(processor["image_std"]) if normalized else 1.0,
        "resize": "crop" if "shortest_edge" in size else "stretch",
        "interpolation": _RESAMPLE[resample],
        "crop": cropped / side if cropped and side else 1.0,
    }


def _sizes(processor: dict) -> dict[str, int]:
    size = processor.get("size") or {}
    return size if isinstance(size, dict) else {"height": size, "width": size}


def _crop(processor: dict) -> int | None:
    if not processor.get("do_center_crop"):
        return None
    size = processor.get("crop_size")
    return size.get("height") if isinstance(size, dict) else size


def _side(processor: dict) -> int | None:
    """Side of the image that the model gets."""
    return _crop(processor) or _sizes(processor).get("height")


def _square(size: Any) -> tuple[int, int] | None:
    """(height, width) from a side, or a pair."""
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else None
