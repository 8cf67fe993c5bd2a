"""The float `.tflite` files of a model, and what is measured on them, each once."""

import functools
from collections.abc import Mapping

import numpy as np
from keras_vit_device.tflite.metadata import digest
from keras_vit_device.tflite.operations import read_operations

from keras_vit.attention import score_gaps
from keras_vit.data.pipeline import spread_rows
from keras_vit_export.activations import logits_name, read_all, snr_db
from keras_vit_export.gpu.half import Half, examine
from keras_vit_export.graph.convert import (
    TIED,
    Origin,
    convert_as_it_is,
    convert_graph,
)
from keras_vit_export.graph.forward import MIX
from keras_vit_export.graph.headroom import give_headroom
from keras_vit_export.graph.inference import Graph
from keras_vit_export.graph.kept_tokens import order_names, shared_tokens
from keras_vit_export.graph.rewrites import (
    REWRITES,
    centre_values,
    lift_weights,
    prune_last_block,
    rewrite,
)
from keras_vit_export.graph.rotation import NONE, Rotation, rotate
from keras_vit_export.graph.substitution import convert_alike
from keras_vit_export.quantization import calibration
from keras_vit_export.quantization.rounding import Moments, measure_moments
from keras_vit_export.splits import Splits

# Images on which the inside of a file is looked at.
FEW = 4
# The rewrite that needs images, and how many; each token of them counts.
CENTRE = centre_values.__name__
_CENTRED_ON = 16


class FloatModels:
    """A model's float files, one for each set of rewrites that a recipe leaves out.

    Args:
        origin: The model.
        splits: Images.
    """

    def __init__(self, origin: Origin, splits: Splits):
        self._origin, self._splits = origin, splits
        # Not by decorators: these would keep the models until the process ends.
        for name in ("_prepare", "half", "_exact_logits"):
            setattr(self, name, functools.cache(getattr(self, name)))
        # A hundred megabytes for a ViT-S.
        self.moments = functools.lru_cache(maxsize=2)(self.moments)
        # By digest: what was tried and not taken need not stay.
        self._statistics: dict[str, Mapping[str, calibration.Statistics]] = {}

    def graph(
        self, without: tuple[str, ...], rotation: Rotation = NONE, lifted: bool = False
    ) -> Graph | None:
        """The inference graph without these rewrites, or `None` if there is none."""
        graph, _ = self._prepare(without)
        graph = graph and rotate(graph, rotation)
        return lift_weights(graph) if lifted else graph

    def file(self, without: tuple[str, ...], rotation: Rotation = NONE) -> bytes:
        """The float32 `.tflite` without these rewrites."""
        graph, file = self._prepare(without)
        if graph is None or rotation == NONE:
            return file
        return convert_alike(rotate(graph, rotation), graph, file)

    def _prepare(self, without: tuple[str, ...]) -> tuple[Graph | None, bytes]:
        """Graph and file, in which no norm overflows in 16-bit floats."""
        if self._origin.graph is None:
            return None, convert_as_it_is(self._origin.classifier)
        if CENTRE not in without and self._splits.calibration is not None:
            plain, file = self._prepare((*without, CENTRE))
            graph = centre_values(plain, self._value_means(file))
            return graph, convert_alike(graph, plain, file)
        graph = rewrite(self._origin.graph, REWRITES.keys() - set(without))
        file = convert_graph(graph)
        fitting = give_headroom(
            graph, self.half(file), lambda it: self.half(convert_graph(it))
        )
        return fitting, file if fitting is graph else convert_graph(fitting)

    def _value_means(self, file: bytes) -> dict[str, np.ndarray]:
        """Of each attention's values over tokens, `(h e,)`, by its name."""
        values = {
            it.scope.removesuffix(f"{MIX};"): it.inputs[1]
            for it in read_operations(file)
            if it.kind == "BATCH_MATMUL" and it.scope.endswith(f"attention{MIX};")
        }
        images = self._splits.calibration
        images = images[spread_rows(len(images), _CENTRED_ON)]
        found = read_all(file, values.values(), images)  # (images, 1, h, n, e)
        return {it: found[at].mean(axis=(0, 1, 3)).ravel() for it, at in values.items()}

    def half(self, file: bytes) -> Half:
        """What 16-bit floats make of a file."""
        return examine(file, self.few_images())

    def few_images(self) -> np.ndarray:
        """Images to compare on, or noise where there are none: uint8 `(count, h, w, c)`."""
        if self._splits.compared is not None:
            return self._splits.compared[:FEW]
        shape = (FEW, *self._origin.classifier.model.input_shape[1:])
        return np.random.default_rng(0).integers(0, 256, shape, "uint8")

    @functools.cached_property
    def undecided(self) -> float | None:
        """Part of the images whose tokens are pruned by nearly equal scores, or `None`."""
        graph = self._origin.graph
        if graph is None or not graph.prunings:
            return None
        images = self.few_images()
        if self._splits.compared is not None:
            images = self._splits.compared
        parts = np.array_split(images, -(-len(images) // FEW))
        model = self._origin.classifier.model
        gaps = np.concatenate([score_gaps(model, part) for part in parts])
        return float(np.mean(gaps <= TIED))

    def statistics(self, file: bytes) -> Mapping[str, calibration.Statistics]:
        """What each tensor of a file holds for the calibration images."""
        name = digest(file)
        if name not in self._statistics:
            found = calibration.collect(file, self._splits.calibration)
            self._statistics[name] = found
        return self._statistics[name]

    def moments(self, file: bytes) -> Mapping[str, Moments]:
        """What the dense layers of a file read for the calibration images."""
        widths = {
            it.inputs[0]: it.operands[1].shape[1]
            for it in read_operations(file)
            if it.kind == "FULLY_CONNECTED" and it.weight_type
        }
        return measure_moments(file, widths, self._splits.calibration)

    def snr(self, file: bytes, quantized: bytes) -> float:
        """SNR in decibels that quantizing leaves of the logits, on the images to compare on."""
        name, expected = self._exact_logits(file)
        found = read_all(quantized, [name], self._splits.compared)
        return snr_db(expected, found[name])

    def _exact_logits(self, file: bytes) -> tuple[str, np.ndarray]:
        name = logits_name(read_operations(file))
        return name, read_all(file, [name], self._splits.compared)[name]

    def layer_snr_db(self, float_model: bytes, content: bytes) -> dict[str, float]:
        """Power over error of each residual sum and of the logits, on a few images.

        Where tokens are pruned, of those that both files keep.

        Args:
            float_model: What was quantized.
            content: What came of it; tensors that it lacks are left out.
        """
        operations = read_operations(float_model)
        names = [it.outputs[0] for it in operations if it.outputs[0].endswith("_add")]
        names = [*names, logits_name(operations)]
        graph = self._origin.graph and prune_last_block(self._origin.graph)
        orders = order_names(graph) if graph else []
        images = self.few_images()
        exact, found = (
            read_all(it, [*names, *orders], images) for it in (float_model, content)
        )

        def snr(name: str) -> float:
            if orders and name.endswith("_add"):
                return snr_db(*shared_tokens(graph, name, exact, found))
            return snr_db(exact[name], found[name])

        return {name: snr(name) for name in names if name in found}
