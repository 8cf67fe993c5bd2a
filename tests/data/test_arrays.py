"""Images that a program holds already, as arrays or in tf.data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit.data import from_arrays, from_datasets
from tests.conftest import pictures_off, xla_off

NAMES = ["dark", "light"]


@pytest.fixture
def labels():
    return np.arange(60) % 2


@pytest.fixture
def images(rng, labels):
    noise = rng.integers(0, 100, (60, 8, 12, 3))
    return (noise + 150 * labels[:, None, None, None]).astype("uint8")


def datasets(images, labels, batch=8, **changed):
    """Three data sets of tf.data, in batches, the held-out ones in order."""
    parts = np.split(np.arange(len(images)), [40, 50])
    made = {}
    for name, rows in zip(("train", "validation", "test"), parts, strict=True):
        dataset = tf.data.Dataset.from_tensor_slices((images[rows], labels[rows]))
        if name == "train":
            dataset = dataset.shuffle(100)
        made[name] = dataset.batch(batch) if batch else dataset
    return made | changed


def test_pixels_between_two_are_the_nearest_in_both_kinds_of_source():
    images = np.full((30, 4, 4, 1), 99.6, "float32")
    labels = np.arange(30) % 2
    rows = {it: np.arange(30) for it in ("train", "validation", "test")}
    sources = [from_arrays("a", "xy", images, labels, rows)]
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    sources.append(from_datasets("b", "xy", **dict.fromkeys(rows, dataset)))
    for source in sources:
        image, _ = next(iter(source.splits["test"].examples))
        assert np.unique(image).tolist() == [100]


def test_arrays_alone_hold_some_out_of_each_class(images, labels):
    source = from_arrays("mine", NAMES, images, labels)
    counts = {name: it.count for name, it in source.splits.items()}
    assert sum(counts.values()) == 60 and min(counts.values()) >= 2
    found = [tuple(it) for split in source.splits.values() for it in split.arrays[1:]]
    assert all({0, 1} <= set(it) for it in found)
    # By the images, wherever they stand.
    order = np.random.default_rng(1).permutation(60)
    again = from_arrays("mine", NAMES, images[order], labels[order])
    for name, split in source.splits.items():
        ours, theirs = (
            sorted(it.tobytes() for it in found.arrays[0])
            for found in (split, again.splits[name])
        )
        assert ours == theirs


@pytest.mark.parametrize("kind", ["uint8", "float32", "one_hot", "single", "unknown"])
def test_data_sets_of_any_form_give_the_images_that_arrays_do(kind, images, labels):
    given = datasets(
        images.astype("float32") if kind == "float32" else images,
        np.eye(2)[labels] if kind == "one_hot" else labels,
        batch=0 if kind == "single" else 7,
    )
    if kind == "unknown":  # how many there are
        given["test"] = given["test"].filter(lambda images, labels: True)
    source = from_datasets("mine", NAMES, **given)
    assert source.image_shape == (8, 12, 3)
    data = source.load(batch_size=4)
    assert data.counts == {"train": 40, "validation": 10, "test": 10}
    found = [it for batch in data.test.as_numpy_iterator() for it in batch[0]]
    np.testing.assert_array_equal(found, images[50:])
    seen = np.concatenate([it[1] for it in data.train.as_numpy_iterator()])
    assert seen.dtype == np.int32 and sorted(seen) == sorted(labels[:40])


def test_what_keras_reads_from_a_folder_is_trained_on(tmp_path, images, labels, tiny):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / NAMES[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        keras.utils.save_img(path, image)
    common = {"image_size": (8, 12), "batch_size": 8, "verbose": False}
    train, test = keras.utils.image_dataset_from_directory(
        tmp_path, validation_split=0.4, subset="both", seed=1, shuffle=True, **common
    )
    with pytest.raises(ValueError, match="validation gives its images in another ord"):
        from_datasets("m", NAMES, train=train, validation=train, test=train)
    source = from_datasets("m", NAMES, train=train, validation=test, test=test)
    config = tiny(num_classes=2, class_names=tuple(NAMES), pool="mean")
    recipe = keras_vit.TrainingRecipe(epochs=6, learning_rate=0.01)
    seen = []
    noted = keras.callbacks.LambdaCallback(on_epoch_end=lambda *it: seen.append(it))
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=100.0, patience=2)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with xla_off(), pictures_off():
        run = keras_vit.train(
            keras_vit.build_vit(config),
            source.load(config, batch_size=8),
            recipe,
            callbacks=[noted, stop, log],
            verbose=0,
        )
    assert len(seen) == len(run.history["loss"]) == 3  # stopped by the second
    assert (tmp_path / "log.csv").read_text().count("\n") == 4
    assert seen[-1][1]["val_accuracy"] == run.history["val_accuracy"][-1]
    assert len(run.evaluation.labels) == 24


def test_a_callback_that_sets_the_learning_rate_is_refused(images, labels, tiny):
    config = tiny(num_classes=2)
    data = from_arrays("mine", NAMES, images, labels).load(config)
    model = keras_vit.build_vit(config)
    for callback in (
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
    ):
        name = type(callback).__name__
        with pytest.raises(ValueError, match=f"no callback can.*{name}"):
            keras_vit.train(model, data, callbacks=[callback])


def test_what_is_no_image_with_a_class_is_refused(images, labels):
    scaled = images.astype("float32") / 255
    given = datasets(images, labels)
    bad = datasets(scaled, labels)["test"]
    for changed, message in (
        ({"test": bad}, "scale them by themselves"),
        ({"test": given["test"].map(lambda images, labels: images)}, "must give (im"),
        ({"test": given["test"].repeat()}, "test has no end"),
        ({"validation": given["test"].take(0)}, "validation is empty"),
        ({"train": datasets(images, labels + 1)["train"]}, "from 0 to 1"),
        ({"test": datasets(images, labels - 0.5)["test"]}, "must be integers"),
        ({"train": datasets(images[0], labels[:8])["train"]}, "images of rank 3"),
    ):
        with pytest.raises(ValueError, match=r".") as error:
            from_datasets("mine", NAMES, **given | changed)
        assert message in str(error.value), error.value
    for wrong in ((scaled, labels), (images[0], labels), (images, labels[1:])):
        with pytest.raises(ValueError, match="Images must be"):
            from_arrays("mine", NAMES, *wrong)
    with pytest.raises(ValueError, match="from 0 to 0"):
        from_arrays("mine", NAMES[:1], images, labels)
    dark = dict.fromkeys(("train", "validation", "test"), np.flatnonzero(labels == 0))
    assert from_arrays("mine", NAMES[:1], images, labels, dark)  # the others are unused
