"""Images with labels by name: bundled digits, any TFDS name, or a folder of images."""

import collections
import contextlib
import difflib
import importlib
import logging
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import tensorflow as tf
from keras_vit_device.pixels import open_image
from keras_vit_device.terminal import one_line

from keras_vit.config import Preprocessing, check_choice
from keras_vit.data import folders
from keras_vit.data.arrays import HELD_OUT, from_arrays, hold_out
from keras_vit.data.batches import PARALLEL, Split
from keras_vit.data.pipeline import ImageData, ImageSource, make_split

# Of protobuf: leaves out whether generated code is of its own version.
_CHECK = "TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK"


def load_data(
    name: str,
    preprocessing: Preprocessing | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
    data_dir: str | None = None,
    broken: str = "skip",
) -> ImageData:
    """Train, validation and test images of a named data set.

    The same seed gives the same batches in the same order (of TensorFlow Datasets' over
    1 GiB, with the same global seed of TensorFlow too). Which images are held out
    does not depend on it, so no seed shows a model the images it is tested on. What a
    folder was taken for and what was left out of it is in `find_source(name).notes`.

    Args:
        name: `"digits"` (bundled with scikit-learn), a folder with one subfolder a
            class (or `train/`, `validation/`, `test/` with these inside), or a name
            that TensorFlow Datasets knows.
        preprocessing: Size, channels and resize mode of the images: a `Preprocessing`,
            or the `ViTConfig` of the model they are for. `None` leaves images as they
            are, which takes images of one size.
        batch_size: Images a batch.
        seed: Seed of the order of the training images.
        data_dir: Where TensorFlow Datasets keeps its files.
        broken: `"skip"` leaves unreadable files of a folder out, `"refuse"` raises.

    Raises:
        ValueError: If the name is unknown, there are fewer than two classes, a class
            has too few images, a file is unreadable and `broken="refuse"`, or
            `batch_size` is below 1.
    """
    source = find_source(name, data_dir=data_dir, broken=broken)
    return source.load(preprocessing, batch_size=batch_size, seed=seed)


def find_source(
    name: str,
    *,
    data_dir: str | None = None,
    broken: str = "skip",
    few: str = "refuse",
) -> ImageSource:
    """Finds the data set of this name; arguments and errors as in `load_data`.

    Args:
        name: As there.
        data_dir: As there.
        broken: As there.
        few: What to do with a folder of which a class has too few images to hold some
            out: `"refuse"` raises, `"test"` makes all images test images.
    """
    check_choice("broken", broken, ("skip", "refuse"))
    check_choice("few", few, ("refuse", "test"))
    if not name:
        raise ValueError("The data set needs a name. Received: ''")
    if name == "digits":
        return _digits()
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        return _folder(path, broken, few)
    if path.exists() or name.startswith(("/", ".", "~")):
        raise ValueError(f"There is no folder of images at {name!r}.")
    return _tfds(name, data_dir)


def _digits() -> ImageSource:
    """1,797 handwritten digits of 8 x 8 pixels, bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # 0..16 as collected -> 0..255 as every model here takes.
    pixels = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    names = [str(digit) for digit in range(10)]
    rows = hold_out([f"digits/{row}" for row in range(len(labels))], labels)
    return from_arrays("digits", names, pixels, labels, rows)


def _folder(root: pathlib.Path, broken: str, few: str) -> ImageSource:
    found = folders.find_images(root, broken)
    files = dict(found.files)
    if few == "test" and _too_few(files):
        every = [pair for pairs in files.values() for pair in pairs]
        files = {"train": [], "validation": [], "test": every}
    missing = {name: part for name, part in HELD_OUT.items() if name not in files}
    if missing:
        train = files["train"]
        keys = [str(path.relative_to(root)) for path, _ in train]
        names = [found.class_names[label] for _, label in train]
        rows = hold_out(keys, names, missing)
        files |= {name: [train[row] for row in chosen] for name, chosen in rows.items()}
    splits = {
        name: make_split(
            [os.fsencode(path) for path, _ in pairs], [label for _, label in pairs]
        )
        for name, pairs in files.items()
    }
    return ImageSource(
        str(root),
        found.class_names,
        found.image_shape,
        splits,
        _decode_file,
        found.skipped,
        usual_shape=found.bulk.shape,
        shape_note=found.bulk.words,
        notes=(*found.remarks, *found.left_out.lines),
        is_folder=True,
        cut=tuple(missing),
    )


def _too_few(files: dict[str, list[folders.LabelledFile]]) -> bool:
    """Whether a class has not one training image for each split that is missing."""
    counts = collections.Counter(label for _, label in files["train"])
    return min(counts.values()) <= sum(name not in files for name in HELD_OUT)


def _decode_file(path: tf.Tensor) -> tf.Tensor:
    # Pillow and not tf.io: it reads what phones and cameras write (orientation,
    # CMYK, palettes, WebP), and it is what the exported model's runtime reads with.
    def decode(name: bytes) -> np.ndarray:
        return np.asarray(open_image(os.fsdecode(name)).convert("RGB"))

    image = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))


@contextlib.contextmanager
def _import_tfds() -> Iterator[ModuleType]:
    """TensorFlow Datasets, also beside a protobuf that is older than its metadata's.

    tensorflow-metadata 1.21 has code that protobuf 6 generated and does not say so;
    Colab has protobuf 5, which runs it, but for a check that it can leave out.
    """
    import tensorflow_datasets as tfds

    if hasattr(tfds, "core"):
        yield tfds
        return
    # What was imported is half of it.
    parts = ("tensorflow_datasets", "tensorflow_metadata")
    for module in [it for it in sys.modules if it.split(".")[0] in parts]:
        del sys.modules[module]
    before = os.environ.get(_CHECK)
    os.environ[_CHECK] = "true"
    try:
        yield importlib.import_module("tensorflow_datasets")
    finally:
        if before is None:
            del os.environ[_CHECK]
        else:
            os.environ[_CHECK] = before


def _tfds(name: str, data_dir: str | None) -> ImageSource:
    with _import_tfds() as tfds:
        return _read_tfds(tfds, name, data_dir)


def _read_tfds(tfds: ModuleType, name: str, data_dir: str | None) -> ImageSource:
    builder = _tfds_builder(tfds, name, data_dir)
    image_key, label_key = builder.info.supervised_keys or (None, None)
    features = dict(getattr(builder.info.features, "items", dict)())
    kinds = [type(features.get(key)) for key in (image_key, label_key)]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
        raise ValueError(f"Data set {name!r} is not one of images with a class each.")
    _download(builder, name)
    given = set(builder.info.splits)
    if "test" in given and not _is_labelled(builder, label_key):
        given.remove("test")
    slices = _tfds_slices(given, name)
    datasets = builder.as_dataset(
        split=slices, decoders={image_key: tfds.decode.SkipDecoding()}
    )
    splits = {
        split: Split(
            dataset.map(
                lambda x: (x[image_key], tf.cast(x[label_key], tf.int32)),
                num_parallel_calls=PARALLEL,
            ),
            builder.info.splits[slices[split]].num_examples,
        )
        for split, dataset in datasets.items()
    }
    shape = features[image_key].shape
    return ImageSource(
        name,
        tuple(features[label_key].names),
        None if None in shape else shape,
        splits,
        features[image_key].decode_example,
    )


def _is_labelled(builder, label_key: str) -> bool:
    """Whether the test split says its classes; contests keep theirs to themselves."""
    first = builder.as_dataset(split="test").take(1).as_numpy_iterator()
    return all(example[label_key] >= 0 for example in first)


def _tfds_builder(tfds, name, data_dir):
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError):
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ValueError(
            f"No folder and no data set is named {name!r}. Nearest: "
            f"{', '.join(near) or 'none'}; 'digits' needs no download"
        ) from None
    return builder


def _download(builder, name) -> None:
    # A missing network is told once, at the end, not at every try.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        builder.download_and_prepare()
    except Exception as error:  # each data set fails in its own way
        reason = one_line(error, 200)
        raise ValueError(
            f"Data set {name!r} could not be downloaded or prepared in "
            f"'{builder.data_dir}'. {type(error).__name__}: {reason}"
        ) from error


def _tfds_slices(given: set[str], name: str) -> dict[str, str]:
    """What each split is cut from; what is missing comes from the end of train."""
    if "train" not in given:
        raise ValueError(f"Data set {name!r} has no training split.")
    slices, end = {}, 100
    if "test" in given:
        slices["test"] = "test"
    elif "validation" in given:
        slices["test"] = "validation"
    for split in ("test", "validation"):
        if split not in slices and (split not in given or split in slices.values()):
            start = end - round(100 * HELD_OUT[split])
            slices[split] = f"train[{start}%:{end}%]"
            end = start
    slices.setdefault("validation", "validation")
    return slices | {"train": f"train[:{end}%]"}
