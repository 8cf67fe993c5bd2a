"""Images and labels -> tf.data: bundled digits, any TFDS name, or a folder of images."""

import dataclasses
import difflib
import hashlib
import logging
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_vit import folders
from keras_vit.config import Preprocessing

# The part of each class that is held out where a data set does not say.
HELD_OUT = {"validation": 0.1, "test": 0.2}
# Resized images are kept in memory up to this many bytes, so each is decoded once.
CACHE_BYTES = 2**30
# Beyond it, encoded examples are shuffled within a window of this many.
SHUFFLE_WINDOW = 10_000


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples that are not decoded yet.

    Attributes:
        examples: Pairs of whatever `ImageSource.decode` takes and an int32 label.
        count: Number of examples.
    """

    examples: tf.data.Dataset
    count: int


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Three data sets of batches, as `model.fit` takes them.

    Attributes:
        name: What the user called it.
        class_names: Name of each label.
        train: Shuffled anew each epoch. Batches of images, uint8 `(b, height, width,
            c)` in 0..255, and of labels, int32 `(b,)`.
        validation: The same, in fixed order.
        test: The same, in fixed order.
        counts: Number of images in each of the three.
    """

    name: str
    class_names: tuple[str, ...]
    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """A data set that was found: its classes and splits, nothing decoded.

    Attributes:
        name: What the user called it.
        class_names: Name of each label.
        image_shape: (height, width, channels) shared by all images, or `None`.
        splits: `"train"`, `"validation"` and `"test"`.
        decode: One raw example -> uint8 tensor `(height, width, c)`.
        skipped: Files that are no readable image and were left out.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    splits: dict[str, Split]
    decode: Callable[[tf.Tensor], tf.Tensor]
    skipped: tuple[pathlib.Path, ...] = ()

    def load(
        self,
        preprocessing: Preprocessing | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
    ) -> ImageData:
        """Decodes, resizes and batches; arguments and errors as in `load_data`."""
        preprocessing = preprocessing or self._unchanged()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")

        def prepare(raw, label):
            return fit_image(self.decode(raw), preprocessing), label

        height, width = preprocessing.image_size
        image_bytes = height * width * preprocessing.channels
        batches = {
            name: _batches(
                split,
                prepare,
                image_bytes * split.count <= CACHE_BYTES,
                batch_size,
                seed if name == "train" else None,
            )
            for name, split in self.splits.items()
        }
        counts = {name: split.count for name, split in self.splits.items()}
        return ImageData(self.name, self.class_names, counts=counts, **batches)

    def _unchanged(self) -> Preprocessing:
        if self.image_shape is None:
            raise ValueError(
                f"The images of {self.name!r} differ in size, so a size is needed. "
                "Received: preprocessing=None"
            )
        height, width, channels = self.image_shape
        return Preprocessing(image_size=(height, width), channels=channels)


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

    The same seed gives the same batches in the same order. Which images are held out
    does not depend on it, so no seed shows a model the images it is tested on.

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
    name: str, *, data_dir: str | None = None, broken: str = "skip"
) -> ImageSource:
    """Finds the data set of this name; arguments and errors as in `load_data`."""
    if name == "digits":
        return _digits()
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        return _folder(path, broken)
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
    return array_source("digits", names, pixels, labels, rows)


def array_source(
    name: str,
    class_names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    rows: dict[str, np.ndarray],
) -> ImageSource:
    """A source from arrays in memory.

    Args:
        name: What to call it.
        class_names: Name of each label.
        images: Uint8 array `(count, height, width, c)`, pixels in 0..255.
        labels: Integers `(count,)`.
        rows: Indices of the examples of `"train"`, `"validation"` and `"test"`.
    """
    splits = {
        split: _split(images[chosen], labels[chosen]) for split, chosen in rows.items()
    }
    return ImageSource(name, tuple(class_names), images.shape[1:], splits, tf.identity)


def _split(examples, labels) -> Split:
    labels = np.asarray(labels, "int32")
    return Split(tf.data.Dataset.from_tensor_slices((examples, labels)), len(labels))


def hold_out(
    keys: Sequence[str],
    labels: Iterable[int],
    parts: dict[str, float] = HELD_OUT,
) -> dict[str, np.ndarray]:
    """Holds out the same part of each class; the rest is `"train"`.

    An example's place follows from a hash of its key alone, so neither a seed nor the
    order of files moves an image from test to train.

    Args:
        keys: A name of each example.
        labels: Its label.
        parts: Part of each class for each split that is held out, at least one image.

    Returns:
        Sorted indices of the examples of each split.

    Raises:
        ValueError: If a class has not one image for each split.
    """
    labels = np.asarray(labels)
    hashes = np.array([hashlib.sha1(key.encode()).hexdigest() for key in keys])
    rows = {split: [] for split in (*parts, "train")}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < len(rows):
            raise ValueError(
                f"Every class needs at least {len(rows)} images, one each for "
                f"{', '.join(rows)}. Received: {len(members)} of class {label}"
            )
        members = members[np.argsort(hashes[members], kind="stable")]
        for split, part in parts.items():
            count = max(1, round(part * np.sum(labels == label)))
            rows[split].append(members[:count])
            members = members[count:]
        rows["train"].append(members)
    return {split: np.sort(np.concatenate(parts)) for split, parts in rows.items()}


def _folder(root: pathlib.Path, broken: str) -> ImageSource:
    found = folders.find_images(root, broken)
    files = dict(found.files)
    missing = {name: part for name, part in HELD_OUT.items() if name not in files}
    if missing:
        train = files["train"]
        keys = [str(path.relative_to(root)) for path, _ in train]
        rows = hold_out(keys, [label for _, label in train], missing)
        files |= {name: [train[row] for row in chosen] for name, chosen in rows.items()}
    splits = {
        name: _split([str(path) for path, _ in pairs], [label for _, label in pairs])
        for name, pairs in files.items()
    }
    return ImageSource(
        str(root),
        found.class_names,
        found.image_shape,
        splits,
        _decode_file,
        found.skipped,
    )


def _decode_file(path: tf.Tensor) -> tf.Tensor:
    # Pillow and not tf.io: it reads what phones and cameras write (orientation,
    # CMYK, palettes, WebP), and it is what the exported model's runtime reads with.
    image = tf.numpy_function(
        lambda name: folders.read_image(name.decode()), [path], tf.uint8, stateful=False
    )
    return tf.ensure_shape(image, (None, None, 3))


def _tfds(name: str, data_dir: str | None) -> ImageSource:
    import tensorflow_datasets as tfds

    builder = _tfds_builder(name, data_dir)
    image_key, label_key = builder.info.supervised_keys or (None, None)
    features = dict(getattr(builder.info.features, "items", dict)())
    kinds = [type(features.get(key)) for key in (image_key, label_key)]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
        raise ValueError(f"Data set {name!r} is not one of images with a class each.")
    _download(builder, name)
    slices = _tfds_slices(set(builder.info.splits), name)
    datasets = builder.as_dataset(
        split=slices, decoders={image_key: tfds.decode.SkipDecoding()}
    )
    splits = {
        split: Split(
            dataset.map(
                lambda x: (x[image_key], tf.cast(x[label_key], tf.int32)),
                num_parallel_calls=tf.data.AUTOTUNE,
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


def _tfds_builder(name, data_dir):
    import tensorflow_datasets as tfds

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
        reason = " ".join(str(error).split())[:200]
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


def _batches(split, prepare, cached, batch_size, shuffle_seed):
    examples = split.examples
    if shuffle_seed is not None and not cached:
        examples = examples.shuffle(SHUFFLE_WINDOW, seed=shuffle_seed)
    examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    if cached:
        examples = examples.cache()
        if shuffle_seed is not None:
            examples = examples.shuffle(split.count, seed=shuffle_seed)
    # A last, smaller batch would make XLA compile the training step twice.
    whole = shuffle_seed is not None and split.count >= batch_size
    return examples.batch(batch_size, drop_remainder=whole).prefetch(tf.data.AUTOTUNE)


def fit_image(image: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """One image of any size -> uint8 `(height, width, c)`, as `Preprocessing` says.

    Args:
        image: Uint8 tensor of rank 3 with 1 or 3 channels.
        preprocessing: Size, channels and resize mode.

    Raises:
        ValueError: If the channels can't be made from those of the image.
    """
    channels = preprocessing.channels
    if (image.shape[-1], channels) == (1, 3):
        image = tf.image.grayscale_to_rgb(image)
    elif (image.shape[-1], channels) == (3, 1):
        image = tf.image.rgb_to_grayscale(image)
    elif image.shape[-1] != channels:
        raise ValueError(
            f"Images with {image.shape[-1]} channels do not fit a model with "
            f"{channels} channels."
        )
    height, width = preprocessing.image_size
    if image.shape[:2] == (height, width) and preprocessing.crop == 1.0:
        return image
    target = tf.constant([height, width], tf.float64)
    resized = target / preprocessing.crop
    if preprocessing.resize == "crop":
        sides = tf.cast(tf.shape(image)[:2], tf.float64)
        resized = sides * tf.reduce_max(resized / sides)
    resized = tf.maximum(tf.cast(tf.round(resized), tf.int32), [height, width])
    method = preprocessing.interpolation
    pixels = tf.image.resize(image, resized, method, antialias=method != "nearest")
    top, left = tf.unstack((resized - [height, width]) // 2)
    pixels = tf.image.crop_to_bounding_box(pixels, top, left, height, width)
    pixels = tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0.0, 255.0)
    return tf.ensure_shape(tf.cast(pixels, tf.uint8), (height, width, channels))
