"""Every public layer: rebuilt from its configuration, saved, and in half precision."""

import keras
import numpy as np
import pytest

from keras_vit import layers

TOKENS = (2, 6, 8)
IMAGES = (2, 8, 12, 3)
VECTORS = (2, 8)

# Every public layer at arguments that are not its defaults.
CASES = {
    "AttentionPool": (
        TOKENS,
        {
            "num_heads": 2,
            "mlp_dim": 12,
            "activation": "gelu_tanh",
            "norm_epsilon": 1e-3,
        },
    ),
    "ClassificationHead": (
        VECTORS,
        {
            "num_classes": 3,
            "hidden": (5, 4),
            "activation": "tanh",
            "dropout": 0.2,
            "head_output": "softmax",
            "class_names": ("a", "b", "c"),
        },
    ),
    "ConvStem": (IMAGES, {"filters": (4, 5)}),
    "DropPath": (TOKENS, {"rate": 0.4, "seed": 3}),
    "FeedForward": (
        TOKENS,
        {"mlp_dim": 12, "activation": "swiglu", "dropout": 0.3},
    ),
    "FirstTokens": (TOKENS, {"count": 2}),
    "LayerScale": (TOKENS, {"initial": 0.3}),
    "LearnedPositions": (TOKENS, {}),
    "MeanPool": (TOKENS, {"num_prefix_tokens": 2, "fused_share": 0.3}),
    "MultiHeadAttention": (
        TOKENS,
        {"num_heads": 4, "qk_norm": True, "norm_epsilon": 1e-2, "dropout": 0.2},
    ),
    "PatchDropout": (TOKENS, {"rate": 0.5, "num_prefix_tokens": 2, "seed": 4}),
    "PatchEmbedding": (IMAGES, {"width": 8, "patch_size": 4}),
    "PixelScaling": (
        IMAGES,
        {
            "mean": (0.1, 0.2, 0.3),
            "std": (0.5, 0.6, 0.7),
            "resize": "crop",
            "interpolation": "bicubic",
            "crop": 0.9,
        },
    ),
    "PoolTokens": (
        TOKENS,
        {"grid": (2, 2), "side": 2, "num_prefix_tokens": 2},
    ),
    "PrefixTokens": (
        TOKENS,
        {"class_token": False, "distillation_token": True, "num_registers": 3},
    ),
    "PruneTokens": (
        (TOKENS, (2, 4, 6, 6)),
        {"keep": 0.5, "num_prefix_tokens": 1, "by_class_token": False, "fused": 3},
    ),
    "SequencePool": (TOKENS, {}),
    "SinCos2DPositions": (TOKENS, {"grid": (2, 3)}),
    "Sinusoidal1DPositions": (TOKENS, {}),
    "TokenAndMeanPool": (TOKENS, {"num_prefix_tokens": 2, "fused_share": 0.3}),
    "TokenPool": (TOKENS, {"index": 1}),
}


def test_no_public_layer_is_missing_from_the_cases():
    public = {n for n in layers.__all__ if isinstance(getattr(layers, n), type)}
    assert public == set(CASES)


@pytest.fixture(params=CASES)
def case(request):
    """A layer's kind, the shapes of what it is called with, and its arguments."""
    shape, arguments = CASES[request.param]
    shapes = shape if isinstance(shape[0], tuple) else (shape,)
    return getattr(layers, request.param), shapes, arguments


@pytest.fixture
def draw(rng):
    """A function from shapes to random numbers of these."""
    return lambda shapes: [rng.normal(size=it).astype("float32") for it in shapes]


def test_a_layer_rebuilt_from_its_config_gives_the_same_output(case, draw, randomize):
    kind, shapes, arguments = case
    x = draw(shapes)
    layer = kind(**arguments, name="it")
    layer(*x)
    randomize(layer)
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    twin = kind.from_config(config)
    twin(*x)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(*x), layer(*x))
    assert twin.get_config() == config


def test_a_layer_survives_a_keras_file(case, draw, randomize, tmp_path):
    kind, shapes, arguments = case
    x = draw(shapes)
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    model = keras.Model(inputs, kind(**arguments)(*inputs))
    randomize(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_close_to_single(case, policy, draw, randomize):
    kind, shapes, arguments = case
    x = draw(shapes)
    single = kind(**arguments)
    expected = np.asarray(single(*x))
    randomize(single)
    expected = np.asarray(single(*x))
    half = kind(**arguments, dtype=policy)
    half(*x)
    half.set_weights(single.get_weights())
    got = np.asarray(keras.ops.cast(half(*x), "float32"))
    # bfloat16 has 8 bits of mantissa; the widest of these sums has 12 terms.
    np.testing.assert_allclose(got, expected, atol=0.15, rtol=0.1)


def test_symbolic_and_real_shapes_agree(case, draw):
    kind, shapes, arguments = case
    layer = kind(**arguments)
    symbolic = layer(*[keras.Input(shape[1:]) for shape in shapes]).shape
    real = np.asarray(layer(*draw(shapes))).shape
    assert all(s in (None, r) for s, r in zip(symbolic, real, strict=True))
