"""Shared by all tests: quiet TensorFlow, seeds, tiny configurations."""

import contextlib
import os
import pathlib
import tempfile
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if "TF_XLA_FLAGS" not in os.environ:
    # One process compiles a training step, those that it starts read it: workers of
    # this run, and runs that a test kills and starts again.
    _compiled = tempfile.TemporaryDirectory(prefix="xla")
    flag = f"--tf_xla_persistent_cache_directory={_compiled.name}"
    os.environ["TF_XLA_FLAGS"] = flag

# Only a power cut loses what the system has and the disk has not, a kill does not; and
# tests would wait for the disk as long as they train.
os.fsync = lambda file: None

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit import ViTConfig
from keras_vit.data import from_arrays
from keras_vit.data.arrays import hold_out


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def uncompiled():
    """Steps run operation by operation: compiling them is most of a test's time."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def xla_off():
    """While the block runs, `train` has TensorFlow run its graphs as they are."""
    compile_ = keras.Model.compile

    def plain(*arguments, **options):
        compile_(*arguments, **options | {"jit_compile": False})

    with mock.patch.object(keras.Model, "compile", plain):
        yield


@contextlib.contextmanager
def pictures_off():
    """While the block runs, pictures are empty files: they take 1.5 seconds a run."""

    def blank(*arguments, **options):
        next(it for it in arguments if isinstance(it, pathlib.Path)).write_bytes(b"")

    names = ("draw_images", "draw_curves", "draw_confusion")
    with mock.patch.multiple("keras_vit.pictures", **dict.fromkeys(names, blank)):
        yield


def split_at(images, validation, test):
    """Images of two classes in turn; validation and test begin at these rows."""
    rows = np.split(np.arange(len(images)), [validation, test])
    rows = dict(zip(("train", "validation", "test"), rows, strict=True))
    return from_arrays("noise", ["a", "b"], images, np.arange(len(images)) % 2, rows)


def write_images(folder, count, seed=0):
    """A folder of two classes, each of this many images that differ."""
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (4, 4, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def events_in(folder):
    """Tag -> {step: value} of the event files in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value
    return found


@pytest.fixture
def without_xla():
    """Steps are graphs, not compiled: three times as fast for a few of them."""
    with xla_off():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tiny():
    """A function from changed fields to a configuration of a few thousand weights."""

    def make(**fields):
        sizes = {"width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 12}
        common = {"image_size": (8, 12), "patch_size": 4, "num_classes": 3}
        return ViTConfig(**{**sizes, **common, **fields})

    return make


@pytest.fixture
def randomize(rng):
    """A function that gives every weight random values: zeros hide mistakes."""

    def fill(layer):
        for weight in layer.weights:
            if np.issubdtype(np.dtype(weight.numpy().dtype), np.floating):
                weight.assign(rng.normal(0.0, 0.5, weight.shape))
        return layer

    return fill


@pytest.fixture(scope="session")
def stripes():
    """A function from a generator to a small data set that a tiny model learns."""

    def make(rng, count=96):
        """Horizontal or vertical stripes of 8 x 12 pixels, with noise."""
        labels = np.arange(count) % 2
        y, x = np.mgrid[:8, :12]
        images = rng.uniform(0, 120, (count, 8, 12, 3))
        for image, label in zip(images, labels, strict=True):
            image += 120 * (((x if label else y) // 2) % 2)[..., None]
        rows = hold_out([str(i) for i in range(count)], labels)
        names = ("across", "down")
        return from_arrays("stripes", names, images.astype("uint8"), labels, rows)

    return make


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
