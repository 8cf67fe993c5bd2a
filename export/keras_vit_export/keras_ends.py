"""What a Keras model says of its two ends, wherever in it that stands."""

import dataclasses
import itertools
import json
import pathlib
import zipfile
from typing import Any

import keras
import numpy as np
from keras_vit_device import meaning
from keras_vit_device.files import open_archive, read_entry
from keras_vit_device.meaning import Meaning
from keras_vit_device.pixel_scale import PixelScale

from keras_vit.config import Preprocessing
from keras_vit.layers import ClassificationHead, PixelScaling
from keras_vit.reuse import config_of

# What layers are trained on: numbers about 0, spread by about 1.
_SPREAD = (0.05, 6.0)
_FARTHEST = 6.0
_SCALED = ("0..1", "-1..1")
# Of pixels less their mean, that is about 0 beside what they are spread by.
_CENTRED = 0.5


@dataclasses.dataclass(frozen=True)
class Ends:
    """What is known of a model's input and output without running it on real images.

    Attributes:
        rule: How images are fitted: keywords of `keras_vit_device.pixels.fit_image`.
        scale: What the model takes in place of pixels 0..255, or `None` if nothing
            tells.
        scale_source: How that is known, in words; empty if nothing tells.
        is_guess: Whether the scale is what suits the model's first layers best, which
            labelled images may contradict.
        class_names: Name of each class, or `()`.
        meaning: Of the output, as far as a part of the model of ours or a loss says it.
    """

    rule: dict[str, Any]
    scale: PixelScale | None = None
    scale_source: str = ""
    is_guess: bool = False
    class_names: tuple[str, ...] = ()
    meaning: Meaning | None = None


def read_ends(model: keras.Model, loss: Any = None) -> Ends:
    """Looks for scaling, class names and loss in a model, and in models inside it.

    Args:
        model: From one image of a fixed size to one row of classes.
        loss: What `loss_in_file` gave, of a model that was loaded without it.
    """
    same = PixelScale.parse("0..255", model.input_shape[-1])
    try:
        config = config_of(model)
    except ValueError:
        return _of_another_make(model, same, loss)
    kind = meaning.LOGITS if config.head_output == "logits" else meaning.PROBABILITIES
    said = Meaning(kind, "its head says so")
    names = config.class_names
    return Ends(config.rule, same, "its layer scaling", False, names, said)


def _of_another_make(model, same: PixelScale, loss: Any) -> Ends:
    _, height, width, channels = model.input_shape
    rule = Preprocessing(image_size=(height, width), channels=channels).rule
    layers = list(model._flatten_layers())
    scalings = [it for it in layers if isinstance(it, PixelScaling)]
    if len(scalings) == 1:
        names = ("resize", "interpolation", "crop")
        rule |= {name: getattr(scalings[0], name) for name in names}
    scale, source = _scale_inside(model, same)
    is_guess = scale is not None
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    if converter is not None:
        rule |= _rule_of(converter)
        scale, source = _scale_of(converter, channels), "its preprocessor"
        is_guess = False
    if loss is None and model.compiled:
        loss = (model.get_compile_config() or {}).get("loss")
    names = _names_of(model, layers)
    return Ends(rule, scale, source, is_guess, names, meaning.of_loss(loss))


def _names_of(model: keras.Model, layers: list[keras.Layer]) -> tuple[str, ...]:
    """Those of the head of ours, if the last weights of the model are in it."""
    heads = [it for it in layers if isinstance(it, ClassificationHead)]
    inner = {id(weight) for head in heads for weight in head.weights}
    if not heads or id(model.weights[-1]) not in inner:
        return ()
    names = tuple(heads[0].class_names)
    return names if len(names) == model.output_shape[-1] else ()


def _scale_of(converter: Any, channels: int) -> PixelScale:
    """Of KerasHub's ImageConverter: x * scale + offset."""
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    scale, offset = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(offset))
    mean, std = -offset / scale, 1.0 / scale
    return PixelScale("its preprocessor's", tuple(mean.tolist()), tuple(std.tolist()))


def _rule_of(converter: Any) -> dict[str, Any]:
    """The nearest that there is to how KerasHub's ImageConverter resizes."""
    rule = {"resize": "crop" if converter.crop_to_aspect_ratio else "stretch"}
    if converter.interpolation in ("nearest", "bilinear", "bicubic"):
        rule["interpolation"] = converter.interpolation
    return rule


def _scale_inside(
    model: keras.Model, same: PixelScale
) -> tuple[PixelScale | None, str]:
    """For what pixels the first layer with a kernel gets numbers that suit layers."""
    noise = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:]))
    noise = noise.astype("float32")
    try:
        found = _before_kernels(model, noise)
    except Exception:  # noqa: BLE001 - whatever a graph of another make may hold
        return None, ""
    if found is None:
        return None, ""
    names, run = found
    black, white = (run(np.full_like(noise, level)) for level in (0.0, 255.0))
    # Padding, resizing or a new batch normalization: they leave 0..255 what it is.
    if np.abs(black).max() < 1.0 and abs(white.max() - 255.0) < 1.0:
        return None, ""
    ranges = [same, *(PixelScale.parse(it, noise.shape[-1]) for it in _SCALED)]
    numbers = {scale: run(scale(noise)) for scale in ranges}
    fit = [scale for scale in ranges if _suits_layers(numbers[scale])]
    if not fit:
        return None, ""
    best = min(fit, key=lambda scale: _distance(numbers[scale]))
    return best, f"its {', '.join(names)}"


def _before_kernels(model: keras.Model, noise: np.ndarray):
    """Names of what stands before the first layer with a kernel, and what it computes."""
    steps, names = [], []
    while True:
        graph = getattr(model, "_functional", None) or model
        first = next((it for it in graph.layers if _has_kernel(it)), None)
        if first is None:
            return None
        before = _up_to(graph, first)
        steps.append(before)
        names += [
            operation.name
            for operation in before.operations
            if not isinstance(operation, keras.layers.InputLayer)
        ]
        if not isinstance(first, keras.Model):
            break
        model = first

    def run(images: np.ndarray) -> np.ndarray:
        for step in steps:
            images = step(images, training=False)
        return np.asarray(images, "float32")

    return names, run


def _up_to(graph: keras.Model, layer: keras.Layer) -> keras.Model:
    """From the model's input to what a layer in it reads."""
    # `layer.input` is a model's own inside, and fails where a layer is called twice.
    own = set(itertools.chain.from_iterable(graph._nodes_by_depth.values()))
    for node in layer._inbound_nodes:
        if node in own:  # and not of another model
            return keras.Model(graph.inputs[0], node.input_tensors[0])
    raise ValueError(f"Nothing leads to {layer.name}.")


def _has_kernel(layer: keras.Layer) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _suits_layers(numbers: np.ndarray) -> bool:
    """Whether they are about 0 and spread by about 1; or pixels less their mean."""
    mean, spread = abs(float(numbers.mean())), float(numbers.std())
    standard = _SPREAD[0] <= spread <= _SPREAD[1] and mean <= _FARTHEST
    return standard or (spread > _SPREAD[1] and mean <= _CENTRED * spread)


def _distance(numbers: np.ndarray) -> float:
    """How far numbers are from a mean of 0 and a standard deviation of 1."""
    return abs(float(numbers.mean())) + abs(float(np.log(numbers.std() + 1e-12)))


def loss_in_file(path: str | pathlib.Path) -> Any:
    """The loss that a `.keras` file was compiled with, as `of_loss` takes it, or `None`."""
    try:
        with open_archive(path) as archive:
            config = json.loads(read_entry(archive, "config.json"))
        return (config.get("compile_config") or {}).get("loss")
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return None  # `load_model` says what is wrong with it
