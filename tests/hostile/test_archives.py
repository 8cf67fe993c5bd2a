"""Archives that would unpack to more than they are: refused before they are read."""

import io
import json
import re
import resource
import zipfile

import h5py
import numpy as np
import pytest
from keras_vit_device.classifier import Classifier
from keras_vit_device.files import open_archive, read_entry
from keras_vit_export.any_classifier import open_classifier

from keras_vit.files import load_model
from tests.device.bulk.running import DIGITS as TFLITE
from tests.hostile.archives import flatbuffer

KERAS = TFLITE.with_suffix(".keras")
HUGE = 3 * 10**8  # bytes of spaces; a thousandth of it when deflated


def write_spaces(archive, name):
    """Writes a huge entry, deflated, without holding it."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as file:
        for _ in range(HUGE // 10**6):
            file.write(b" " * 10**6)


def rewritten(path, name, into):
    """A copy of an archive in which one entry is huge and deflated."""
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        write_spaces(new, name)
    return into


def peak_grown(job):
    """By how many bytes a job raises the largest memory of this process so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def refused(job, message):
    def run():
        with pytest.raises(ValueError, match=message) as error:
            job()
        assert len(str(error.value).splitlines()) == 1

    assert peak_grown(run) < HUGE / 2


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_keras_file_that_unpacks_to_gigabytes_is_refused(name, tmp_path):
    path = rewritten(KERAS, name, tmp_path / "bomb.keras")
    assert path.stat().st_size < HUGE / 100
    refused(lambda: load_model(path), "would unpack to 30[0-9,]+ bytes")
    refused(lambda: open_classifier(path), "would unpack")


def test_a_tflite_whose_labels_unpack_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.tflite"
    path.write_bytes(flatbuffer(TFLITE.read_bytes()))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        write_spaces(archive, "labels.txt")
    refused(lambda: Classifier(path), "would unpack to 300,000,000 bytes")


def test_an_entry_that_is_larger_than_it_says_is_damaged(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b" " * 10**7)
    content = file.getvalue().replace((10**7).to_bytes(4, "little"), b"\x10\0\0\0")
    with open_archive(io.BytesIO(content)) as archive:
        assert archive.getinfo("a").file_size == 16
        with pytest.raises(zipfile.BadZipFile):
            read_entry(archive, "a")


def test_an_entry_of_another_packing_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"text")
    with (
        pytest.raises(ValueError, match="'a' is neither stored nor deflated"),
        open_archive(file),
    ):
        pass


def test_weights_that_were_declared_and_never_written_are_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(KERAS) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            if entry.filename != "model.weights.h5":
                new.writestr(entry, old.read(entry))
        file = io.BytesIO()
        with h5py.File(file, "w") as weights:
            shape, chunks = (10**6, 10**6), (1024, 1024)
            weights.create_dataset("layers/a/vars/0", shape, "f4", chunks=chunks)
        new.writestr("model.weights.h5", file.getvalue())
    refused(lambda: load_model(path), "would take 4,000,000,000,000 bytes")


@pytest.mark.parametrize("field", ["registered_name", "module", "class_name"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, 7, None, ""])
def test_classes_without_names_are_refused_in_a_line(field, value, tmp_path):
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(KERAS) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "config.json":
                config = json.loads(content)
                for layer in config["config"]["layers"]:
                    layer[field] = value
                    layer.setdefault("registered_name", "keras_vit>None")
                content = json.dumps(config).encode()
            new.writestr(entry, content)
    refused(lambda: load_model(path), "changed.keras")


def test_a_model_that_was_packed_again_is_loaded(tmp_path):
    path = tmp_path / "packed.keras"
    with (
        zipfile.ZipFile(KERAS) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    for given, expected in zip(
        load_model(path).get_weights(), load_model(KERAS).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("name", ["labels.txt", "keras_vit.json"])
def test_what_a_tflite_carries_is_not_compressed(name, tmp_path):
    content = TFLITE.read_bytes()
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        file.write(flatbuffer(content))
        entries = {it: archive.read(it) for it in archive.namelist()}
    assert json.loads(entries["keras_vit.json"])
    with zipfile.ZipFile(file, "a") as archive:
        for entry, text in entries.items():
            kind = zipfile.ZIP_DEFLATED if entry == name else zipfile.ZIP_STORED
            archive.writestr(entry, text, kind)
    with pytest.raises(ValueError, match=f"{re.escape(name)} is compressed"):
        Classifier(file.getvalue())
