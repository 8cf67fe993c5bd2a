"""The same Vision Transformer, with the same weights, in this library and its peers.

`reference_model` makes the Keras model, `recipe_candidates` and the functions of `PEERS`
what is timed against each other. `export_peers.py` and `growth.py` do the timing.
"""

# Triton, which timm loads, crashes in a process that has loaded TensorFlow before it.
try:
    import timm
    import torch
except ImportError:
    timm = torch = None

import dataclasses
import functools
import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras_vit_export import export
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

import keras_vit

Run = Callable[[np.ndarray], np.ndarray]

KERASHUB_FLOAT32 = "KerasHub float32"
KERASHUB_INT8 = (
    "KerasHub dynamic int8 (tf.lite)",
    "KerasHub dynamic int8 (litert-quantizer)",
)
TFLITE_INT8 = "tf.lite full int8"
ONNX_FLOAT32 = "ONNX Runtime float32"
ONNX_INT8 = "ONNX Runtime dynamic int8"
TORCH_FLOAT32 = "PyTorch eager float32"
FLOOR = "floor: dense layers alone"
# Of one recipe, fewer tokens and, beside them, smaller images.
FASTER_RECIPE = "static_int8"
REDUCTIONS = {
    "keep 0.7": 0.7,
    "keep 0.5": 0.5,
    "pool in block 6": ((5, "pool", 2),),
    "pool in block 4": ((3, "pool", 2),),
}
SIDES = (192, 176, 160)
FASTER = tuple(
    f"{FASTER_RECIPE}, {it}" for it in (*REDUCTIONS, *(f"{side} px" for side in SIDES))
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: What the tables call it.
        size_bytes: Size of its file in bytes; of PyTorch, that of the weights.
        prepare: From pixels 0..255, float32 `(1, height, width, c)`, to its input.
        start: From a number of threads to a function from that input to the output,
            logits or probabilities, `(1, num_classes)`.
    """

    name: str
    size_bytes: int
    prepare: Callable[[np.ndarray], np.ndarray]
    start: Callable[[int], Run]


@dataclasses.dataclass(frozen=True)
class Peer:
    """Candidates that need packages which the library itself does not.

    Attributes:
        build: From the Keras model and images `(b, height, width, c)` of uint8 to
            candidates.
        packages: Import names that must be there.
    """

    build: Callable[[keras.Model, np.ndarray], list[Candidate]]
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Packages that this environment lacks."""
        return [name for name in self.packages if not importlib.util.find_spec(name)]


def reference_model(config: keras_vit.ViTConfig, seed: int = 0) -> keras.Model:
    """A model none of whose weights is zero or one, so that each is seen to count."""
    keras.utils.set_random_seed(seed)
    model = keras_vit.build_vit(config)
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        # Biases and norms start at 0 or 1, and so does the whole head.
        if len(weight.shape) == 1 or weight.path.startswith("head"):
            noise = generator.normal(0.0, 0.1, weight.shape)
            weight.assign(weight + noise.astype("float32"))
    return model


def smooth_images(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Low-frequency noise as uint8 images `(count, side, side, 3)`."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 7, 7, 3))
    fine = tf.image.resize(coarse, (side, side), "bicubic").numpy()
    return np.clip(np.round(fine), 0, 255).astype("uint8")


def labelled(images: np.ndarray) -> tf.data.Dataset:
    """Batches of images and labels, such as `keras_vit_export.export` takes."""
    labels = np.zeros(len(images), "int32")
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)


def tflite_candidate(name: str, content: bytes, prepare=None) -> Candidate:
    """A `.tflite` run by LiteRT; it takes pixels 0..255 unless `prepare` says else."""

    def start(threads: int) -> Run:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        (taken,) = interpreter.get_input_details()
        (given,) = interpreter.get_output_details()

        def run(image: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(taken["index"], image)
            interpreter.invoke()
            return interpreter.get_tensor(given["index"])

        return run

    details = Interpreter(model_content=content).get_input_details()
    dtype = details[0]["dtype"]
    return Candidate(
        name, len(content), prepare or (lambda pixels: pixels.astype(dtype)), start
    )


def recipe_candidates(
    model: keras.Model, recipes: list[str], images: np.ndarray
) -> Iterator[Candidate]:
    """This exporter's files, one a recipe; `images` calibrate."""
    for recipe in recipes:
        content, _ = export(model, recipe, labelled(images))
        yield tflite_candidate(recipe, content)


def faster_candidates(model: keras.Model, images: np.ndarray) -> Iterator[Candidate]:
    """The same weights, going on with fewer tokens or seeing smaller images."""
    for name, steps in REDUCTIONS.items():
        reduced = keras_vit.with_fewer_tokens(model, steps)
        content, _ = export(reduced, FASTER_RECIPE, labelled(images))
        yield tflite_candidate(f"{FASTER_RECIPE}, {name}", content)
    for side in SIDES:
        smaller = keras_vit.with_image_size(model, (side, side))
        cut = images[:, :side, :side]
        content, _ = export(smaller, FASTER_RECIPE, labelled(cut))
        yield tflite_candidate(
            f"{FASTER_RECIPE}, {side} px", content, functools.partial(_corner, side)
        )


def _corner(side: int, pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :side, :side].astype("float32")


def scaled(pixels: np.ndarray) -> np.ndarray:
    """What the model's first layer does, for peers that have no such layer."""
    return (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def kerashub_model(model: keras.Model) -> keras.Model:
    """KerasHub's `ViTImageClassifier` with the weights of `model`."""
    import keras_hub

    config = keras_vit.config_of(model)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(*config.image_size, config.channels),
        patch_size=config.patch_size,
        num_layers=config.depth,
        num_heads=config.num_heads,
        hidden_dim=config.width,
        mlp_dim=config.mlp_dim,
        layer_norm_epsilon=config.norm_epsilon,
    )
    classifier = keras_hub.models.ViTImageClassifier(backbone, config.num_classes)
    # Both list their weights from the patches to the head, KerasHub the class token
    # first. It splits the heads in its kernels, `(d, h, e)`, in the same order.
    kernel, bias, token, *rest = model.weights
    ordered = (token, kernel, bias, *rest)
    for ours, theirs in zip(ordered, classifier.weights, strict=True):
        theirs.assign(np.reshape(ours, theirs.shape))
    return classifier


def keras_litert(model: keras.Model, **converter_options) -> bytes:
    """Keras' own `model.export(format="litert")` for one image at a time."""
    static = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        model.export(
            path,
            format="litert",
            input_signature=[static],
            verbose=False,
            **converter_options,
        )
        return path.read_bytes()


def kerashub_candidates(model: keras.Model, images: np.ndarray) -> list[Candidate]:
    """Float32, and dynamic int8 by both quantizers that a user could take."""
    from litert_quantizer import Quantizer, recipe

    classifier = kerashub_model(model)
    float32 = keras_litert(classifier)
    default = keras_litert(classifier, optimizations=[tf.lite.Optimize.DEFAULT])
    quantizer = Quantizer(bytearray(float32), recipe.dynamic_wi8_afp32())
    quantized = quantizer.quantize(
        enable_progress_bar=False, enable_progress_report=False
    )
    contents = (float32, default, bytes(quantized.quantized_model))
    names = (KERASHUB_FLOAT32, *KERASHUB_INT8)
    return [
        tflite_candidate(name, content, scaled)
        for name, content in zip(names, contents, strict=True)
    ]


def tflite_candidates(model: keras.Model, images: np.ndarray) -> list[Candidate]:
    """Full integer quantization by `tf.lite` of the Keras model as it is."""
    content = keras_litert(
        model,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: (
            [image[None].astype("float32")] for image in images
        ),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )
    return [tflite_candidate(TFLITE_INT8, content)]


def timm_model(model: keras.Model):
    """timm's `VisionTransformer` with the weights of `model`.

    With the sizes of Ti/16 and S/16 it is `vit_tiny_patch16_224` and
    `vit_small_patch16_224`.
    """
    config = keras_vit.config_of(model)
    theirs = timm.models.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_dim / config.width,
        num_classes=config.num_classes,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=config.norm_epsilon),
    )
    weights = {weight.path: np.array(weight) for weight in model.weights}
    state = timm_state(weights, config.depth)
    theirs.load_state_dict({name: torch.tensor(it) for name, it in state.items()})
    return theirs.eval()


def timm_state(weights: dict[str, np.ndarray], depth: int) -> dict[str, np.ndarray]:
    """Weights of the Keras model by path -> those of timm's by name."""
    kernel = weights["patches/projection/kernel"]
    state = {
        "cls_token": weights["prefix_tokens/class_token"],
        "pos_embed": weights["positions/positions"],
        "patch_embed.proj.weight": kernel.transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": weights["patches/projection/bias"],
        **_norm("norm", weights, "final_norm"),
        **_dense("head", weights, "head/logits"),
    }
    for index in range(depth):
        state |= _block(f"blocks.{index}", weights, f"block_{index:02d}")
    return state


def _block(theirs: str, weights: dict, ours: str) -> dict[str, np.ndarray]:
    """One block's weights; timm has queries, keys and values in one dense layer."""
    mixers = [f"{ours}_attention/{name}" for name in ("query", "key", "value")]
    return {
        **_norm(f"{theirs}.norm1", weights, f"{ours}_attention_norm"),
        **_dense(f"{theirs}.attn.qkv", weights, *mixers),
        **_dense(f"{theirs}.attn.proj", weights, f"{ours}_attention/output_projection"),
        **_norm(f"{theirs}.norm2", weights, f"{ours}_mlp_norm"),
        **_dense(f"{theirs}.mlp.fc1", weights, f"{ours}_mlp/hidden"),
        **_dense(f"{theirs}.mlp.fc2", weights, f"{ours}_mlp/output_projection"),
    }


def _norm(theirs: str, weights: dict, ours: str) -> dict[str, np.ndarray]:
    return {
        f"{theirs}.weight": weights[f"{ours}/gamma"],
        f"{theirs}.bias": weights[f"{ours}/beta"],
    }


def _dense(theirs: str, weights: dict, *ours: str) -> dict[str, np.ndarray]:
    """PyTorch keeps kernels as `(units, inputs)`."""
    kernels = [weights[f"{name}/kernel"] for name in ours]
    return {
        f"{theirs}.weight": np.concatenate(kernels, axis=1).T,
        f"{theirs}.bias": np.concatenate([weights[f"{name}/bias"] for name in ours]),
    }


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """Scaled pixels as PyTorch lays them out."""
    return np.ascontiguousarray(scaled(pixels).transpose(0, 3, 1, 2))


def torch_candidates(model: keras.Model, images: np.ndarray) -> list[Candidate]:
    """PyTorch without compilation."""
    network = timm_model(model)

    def start(threads: int) -> Run:
        torch.set_num_threads(threads)

        def run(image: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(image)).numpy()

        return run

    size = sum(weight.nbytes for weight in network.parameters())
    return [Candidate(TORCH_FLOAT32, size, channels_first, start)]


def onnx_candidates(model: keras.Model, images: np.ndarray) -> list[Candidate]:
    """ONNX Runtime on timm's model: float32, and dynamic int8 as its manual says.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        names = ("float32.onnx", "prepared.onnx", "int8.onnx")
        float32, prepared, int8 = (pathlib.Path(folder, name) for name in names)
        torch.onnx.export(
            timm_model(model),
            (torch.from_numpy(channels_first(images[:1].astype("float32"))),),
            float32,
            external_data=False,
            verbose=False,
        )
        quant_pre_process(float32, prepared)
        quantize_dynamic(prepared, int8, weight_type=QuantType.QInt8)
        contents = [path.read_bytes() for path in (float32, int8)]
    names = (ONNX_FLOAT32, ONNX_INT8)
    return [
        Candidate(name, len(content), channels_first, _onnx_start(content))
        for name, content in zip(names, contents, strict=True)
    ]


def _onnx_start(content: bytes) -> Callable[[int], Run]:
    def start(threads: int) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        (taken,) = session.get_inputs()
        return lambda image: session.run(None, {taken.name: image})[0]

    return start


def floor_model(config: keras_vit.ViTConfig) -> keras.Model:
    """The model without attention core, norms and GELU: what no recipe can leave out.

    Queries, keys and values are added up, so that the converter keeps all three.
    """
    image = keras.Input((*config.image_size, config.channels))
    x = keras_vit.layers.PatchEmbedding(config.width, config.patch_size)(image)
    x = keras_vit.layers.PrefixTokens()(x)  # as many tokens as the model has
    for _ in range(config.depth):
        mixed = [keras.layers.Dense(config.width)(x) for _ in range(3)]
        y = keras.layers.Dense(config.width)(keras.layers.Add()(mixed))
        x = keras.layers.Add()([x, y])
        y = keras.layers.Dense(config.width)(keras.layers.Dense(config.mlp_dim)(x))
        x = keras.layers.Add()([x, y])
    pooled = keras_vit.layers.TokenPool()(x)
    return keras.Model(image, keras.layers.Dense(config.num_classes)(pooled))


def floor_candidates(model: keras.Model, images: np.ndarray) -> list[Candidate]:
    """The floor as `dynamic_int8`, every token in every block."""
    floor = floor_model(keras_vit.config_of(model))
    content, _ = export(floor, "dynamic_int8", logits=True)
    return [tflite_candidate(FLOOR, content)]


_TIMM = ("timm", "torch")
PEERS: dict[str, Peer] = {
    "kerashub": Peer(kerashub_candidates, ("keras_hub",)),
    "tflite": Peer(tflite_candidates),
    "onnx": Peer(onnx_candidates, (*_TIMM, "onnx", "onnxscript", "onnxruntime")),
    "torch": Peer(torch_candidates, _TIMM),
    "floor": Peer(floor_candidates),
}
INT8_RECIPES = tuple(name for name in QUANTIZATION_RECIPES if name.endswith("int8"))
