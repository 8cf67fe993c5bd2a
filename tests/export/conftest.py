"""Shared by the exporter's tests: options that cover each other, images, exports."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

# Every choice that ViTConfig offers; two of different rows meet in some configuration.
OPTIONS = {
    "pool": [
        {"pool": "token"},
        {"pool": "mean"},
        {"pool": "token_and_mean"},
        {"pool": "map"},
        {"pool": "sequence"},
    ],
    "prefix": [
        {"class_token": True},
        {"class_token": False},
        {"class_token": True, "distillation_token": True},
        {"class_token": True, "num_registers": 2},
    ],
    "positions": [
        {"positions": "learned"},
        {"positions": "learned", "positions_cover_prefix": False},
        {"positions": "sinusoidal_1d"},
        {"positions": "sincos_2d"},
    ],
    "activation": [
        {"activation": "gelu"},
        {"activation": "gelu_tanh"},
        {"activation": "relu"},
        {"activation": "swiglu"},
    ],
    "stem": [{"stem": ()}, {"stem": (4,)}, {"stem": (3, 5)}],
    "scaling": [{"mean": 0.0, "std": 0.25}, {"mean": (0.4, 0.5, 0.6), "std": 0.2}],
    "qk_norm": [{"qk_norm": False}, {"qk_norm": True}],
    "layer_scale": [{"layer_scale": None}, {"layer_scale": 0.5}],
    "norm": [{"norm_after_pool": False}, {"norm_after_pool": True}],
    "head": [
        {"head_hidden": ()},
        {"head_hidden": (5,)},
        {"head_hidden": (5,), "head_activation": "tanh"},
    ],
    "output": [{"head_output": "logits"}, {"head_output": "softmax"}],
}


def allowed(fields):
    """Whether ViTConfig takes the fields together."""
    if fields.get("class_token") is False and "token" in fields.get("pool", ""):
        return False
    if fields.get("pool") == "token_and_mean" and fields.get("norm_after_pool"):
        return False
    if fields.get("distillation_token") and fields.get("pool", "token") != "token":
        return False
    return not (
        fields.get("class_token") is False
        and fields.get("positions_cover_prefix") is not None
    )


def _merge(chosen):
    fields = {}
    for row, index in chosen.items():
        fields |= OPTIONS[row][index]
    return fields


def covering_set():
    """Configurations in which every two options that may meet do meet, greedily."""
    rows = list(OPTIONS)
    missing = {
        frozenset({(a, i), (b, j)})
        for a, b in itertools.combinations(rows, 2)
        for i in range(len(OPTIONS[a]))
        for j in range(len(OPTIONS[b]))
        if allowed(_merge({a: i, b: j}))
    }
    configurations = []
    while missing:
        chosen = dict(min(map(sorted, missing)))
        for row in rows:
            if row in chosen:
                continue
            fits = [
                index
                for index in range(len(OPTIONS[row]))
                if allowed(_merge(chosen | {row: index}))
            ]
            chosen[row] = max(
                fits, key=lambda index: _news(chosen, row, index, missing)
            )
        pairs = itertools.combinations(chosen.items(), 2)
        missing -= {frozenset(pair) for pair in pairs}
        configurations.append(_merge(chosen))
    return configurations


def _news(chosen, row, index, missing):
    return sum(frozenset({(row, index), other}) in missing for other in chosen.items())


COVERING = covering_set()


def check_layout(content):
    """Nothing in a `.tflite` leaves a GPU to guess how a shape is meant."""
    from keras_vit_device.tflite.operations import read_operations
    from keras_vit_export.gpu.pitfalls import ELEMENTWISE, pitfalls

    assert not pitfalls(content)
    for operation in read_operations(content):
        if operation.kind in ELEMENTWISE:
            ranks = {len(it.shape) for it in operation.operands}
            assert len(ranks) == 1, operation


@pytest.fixture(scope="session")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (16, 8, 12, 3)).astype("uint8")


@pytest.fixture(scope="session")
def images(pixels):
    """Batches of random images and labels of three classes."""
    import tensorflow as tf

    labels = np.random.default_rng(2).integers(0, 3, len(pixels)).astype("int32")
    return tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8)


@pytest.fixture
def model(tiny, randomize):
    """Wide enough that 8 bits round as they do in real models."""
    from keras_vit import build_vit

    fields = {"width": 32, "num_heads": 2, "mlp_dim": 64, "stem": (8,)}
    return randomize(build_vit(tiny(**fields)))


@pytest.fixture
def float_model(model):
    from keras_vit_export.graph.convert import convert_graph, read_origin
    from keras_vit_export.graph.rewrites import rewrite

    return convert_graph(rewrite(read_origin(model).graph))


@pytest.fixture
def saved(tmp_path):
    """An untrained model of the digits, for what needs no right answer."""
    from keras_vit import ViTConfig, build_vit
    from keras_vit.files import save_model

    names = tuple("0123456789")
    config = ViTConfig.from_variant(
        "nano/4", image_size=8, channels=1, num_classes=10, class_names=names, depth=1
    )
    save_model(build_vit(config), tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def digit(tmp_path):
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    image = Image.fromarray((images[0].reshape(8, 8) * 15.9).astype("uint8"))
    image.save(tmp_path / "digit.png")
    return tmp_path / "digit.png", str(labels[0])


@pytest.fixture(scope="session")
def shades():
    """Batches of labelled images, ordered by class, that any such model tells apart."""
    import tensorflow as tf
    from shades import CENTRES, SHAPE

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    pixels = 255 * CENTRES[labels, None, None, None] + rng.normal(0, 9, (60, *SHAPE))
    return tf.data.Dataset.from_tensor_slices(
        (pixels.clip(0, 255).astype("uint8"), labels)
    ).batch(16)


@pytest.fixture
def photos(tmp_path):
    """Two classes that are easy to tell, and one file that is no image."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 155)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(low, low + 100, (20, 16, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{index}.png")
    (tmp_path / "photos/dark/notes.txt").write_text("no image")
    return tmp_path / "photos"


def run(*arguments):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_vit_cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def complaint(capfd, *arguments):
    """The one line that a wrong command answers with."""
    from keras_vit_cli.main import main

    assert main([str(argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("keras-vit: ")
    assert "Traceback" not in captured.err
    return lines[0]
