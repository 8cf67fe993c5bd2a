"""Whatever an image or a folder does, the others are read, and it is said."""

import io
import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from keras_vit_cli.main import main
from keras_vit_device import bulk
from keras_vit_device.classifier import Classifier
from keras_vit_device.images import LeftOut, image_names
from keras_vit_device.pixels import MAX_SIDE, UnreadableError, open_image, read_image
from PIL import EpsImagePlugin, Image

from tests.device.bulk.running import DIGITS, read

RULE = {"image_size": (8, 8), "channels": 1}


def png(width, height, held=None):
    """A grey PNG of any size, black, as small as zlib makes it; `held` of its rows."""

    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(width)) * (held or height), 9)
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nquit\n"


@pytest.fixture
def hostile(tmp_path):
    """A folder of one good image and many bad ones, with the reasons of these."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (8, 8), 200).save(folder / "good.png")
    (folder / "long.png").write_bytes(png(MAX_SIDE + 1, 1))
    (folder / "tall.png").write_bytes(png(1, MAX_SIDE + 1))
    (folder / "bomb.png").write_bytes(png(20_000, 20_000, held=9))
    (folder / "script.png").write_bytes(EPS)
    (folder / "script.jpg").write_bytes(EPS)
    (folder / "empty.png").touch()
    return folder


@pytest.fixture
def no_other_program(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize("content", [png(MAX_SIDE + 1, 1), png(1, MAX_SIDE + 1)])
def test_sides_whose_filters_take_gigabytes_are_refused(content):
    with pytest.raises(UnreadableError, match="a side of more than 1,000,000 pixels"):
        read_image(content, RULE)
    assert open_image(png(MAX_SIDE, 1)).size == (MAX_SIDE, 1)


def test_what_fails_in_resizing_is_unreadable_too(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", fail)
    with pytest.raises(UnreadableError, match="MemoryError") as caught:
        read_image(png(20, 10), RULE)
    assert caught.value.reason == "more memory than there is"


@pytest.mark.usefixtures("no_other_program")
def test_no_image_starts_a_program():
    with pytest.raises(UnreadableError, match="cannot identify"):
        open_image(EPS)


def test_a_folder_of_hostile_images_is_classified_to_its_end(hostile, tmp_path, capfd):
    output = tmp_path / "out.csv"
    summary = bulk.classify_folder(DIGITS, hostile, output, workers=1)
    rows = {row["file"]: row for row in read(output.read_bytes())}
    assert summary.images == len(rows) == 7 and rows["good.png"]["class"]
    assert set(summary.unreadable) == rows.keys() - {"good.png"}
    assert all(rows[name]["error"] for name in summary.unreadable)
    assert main(["classify", str(DIGITS), str(hostile)]) == 2
    shown = capfd.readouterr()
    assert len(shown.out.splitlines()) == 1 and len(shown.err.splitlines()) == 6
    assert all("unreadable or no image" in line for line in shown.err.splitlines())


def test_a_link_to_itself_and_a_deep_folder_are_passed_by(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(png(4, 4))
    for name in ("link", "link.png"):
        (root / name).symlink_to(root / name)
    here = os.getcwd()
    try:
        os.chdir(root)
        for _ in range(2500):  # longer than a path may be
            os.mkdir("d")
            os.chdir("d")
        os.chdir(root)
        for _ in range(1200):  # deeper than Python's calls
            os.chdir("d")
        with open("reached.png", "wb") as file:
            file.write(png(4, 4))
        os.chdir(here)
        left_out = LeftOut()
        names = list(image_names(root, left_out))
        assert names == ["a.png", "d/" * 1200 + "reached.png"]
        assert any("folder that can't be opened" in it for it in left_out.lines)
        assert left_out.images == 3 and max(map(len, left_out.lines)) < 500
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", root], check=True)


def test_a_folder_that_is_closed_is_said_and_the_others_are_read(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(4, 4))
    scan = os.scandir

    def closed(path):
        if str(path).rstrip("/").endswith("/b"):  # root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    left_out = LeftOut()
    assert list(image_names(tmp_path, left_out)) == ["a/1.png", "c/1.png"]
    (line,) = left_out.lines
    assert "1 left out, folder that can't be opened" in line and "/b" in line


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "RGBA"])
def test_bytes_and_images_of_pillow_are_read_as_their_files_are(mode, tmp_path, rng):
    pixels = rng.integers(0, 256, (20, 30, 3), "uint8")
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype("uint16") * 200 + 7)
    elif mode != "RGB":
        image = image.convert(mode)
    image.getexif()[274] = 6  # to be turned
    path = tmp_path / "image.png"
    image.save(path, exif=image.getexif())
    classifier = Classifier(DIGITS)
    expected = classifier.read(path)
    np.testing.assert_array_equal(classifier.read(path.read_bytes()), expected)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(classifier.read(opened), expected)
        assert opened.size == (30, 20)
    assert classifier(path.read_bytes()) == classifier(path)
    with pytest.raises(UnreadableError, match="^The image is unreadable"):
        classifier.read(path.read_bytes()[:40])


def test_sixteen_bits_are_scaled_as_division_and_rounding_do():
    every = np.arange(2**16, dtype="uint16").reshape(256, 256)
    file = io.BytesIO()
    Image.fromarray(every).save(file, "PNG")
    expected = np.round(every / 257).astype("uint8")
    np.testing.assert_array_equal(np.asarray(open_image(file.getvalue())), expected)
