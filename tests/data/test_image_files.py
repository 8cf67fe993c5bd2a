"""Which files are images, and what is said of the others."""

import os
import sys

import numpy as np
import pytest
from keras_vit_device import pixels
from keras_vit_device.images import LeftOut, image_names, suffixes
from keras_vit_device.pixels import UnreadableError, open_image
from PIL import Image

from keras_vit.data.folders import find_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def paint(path, kind=None, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 0)).save(path, kind)


@pytest.fixture
def without_heic(monkeypatch):
    """As where pillow-heif is not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    caches = pixels._register_heic, pixels.decoded_formats, suffixes
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


KINDS = {
    "a.png": "PNG",
    "b.jfif": "JPEG",
    "c.avif": "AVIF",
    "d.jp2": "JPEG2000",
    "e.JPE": "JPEG",
    "f.mpo": "JPEG",
    "g.webp": "WEBP",
    "h.tiff": "TIFF",
    "i": "PNG",
    "j.jpg_large": "JPEG",
    "k.heic": "JPEG",
    "l.ppm": "PPM",
    "m.tga": "TGA",
}


def test_every_command_finds_what_pillow_opens(tmp_path, without_heic):
    for name, kind in KINDS.items():
        for label in ("x", "y"):
            paint(tmp_path / label / name, kind)
    assert list(image_names(tmp_path / "x")) == list(KINDS)
    found = find_images(tmp_path)
    assert len(found.files["train"]) == 2 * len(KINDS) and not found.skipped


def test_what_is_no_image_is_counted_by_reason(tmp_path, without_heic):
    (tmp_path / "notes.txt").write_text("BMW is a car")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "phone.heic").write_bytes(HEIC)
    (tmp_path / "phone").write_bytes(HEIC)
    (tmp_path / "drawing.svg").write_text("<svg/>")
    paint(tmp_path / "raw.dng", "TIFF")
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / ".hidden").touch()
    paint(tmp_path / "@eaDir/a.jpg")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    left_out = LeftOut()
    assert not list(image_names(tmp_path, left_out))
    assert left_out.counts == {
        "no image": 2,
        "HEIC: pip install 'keras-vit-edge[heif]'": 2,
        "of a format that Pillow does not read": 1,
        "raw file of a camera, which Pillow does not develop": 1,
        "of a system, not of the data": 2,
        "hidden": 1,
        "link to nothing": 2,
        "no regular file": 1,
    }
    assert left_out.images == 6
    assert f"2 left out, no image: {tmp_path}/notes.txt, " in "".join(left_out.lines)


def test_a_million_names_take_no_more_memory_than_three():
    left_out = LeftOut()
    for index in range(1000):
        left_out.add("no image", f"{index}.txt")
    assert left_out.lines == ["1,000 left out, no image: 0.txt, 1.txt, 2.txt, ..."]


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    paint(data / "cat/0.png")
    paint(data / "dog/0.png")
    for index in range(3):
        paint(outside / f"more/{index}.png")
    (outside / "more/up").symlink_to(outside)
    (data / "cat/more").symlink_to(outside / "more")
    (data / "cat/again").symlink_to(outside / "more")
    (data / "cat/circle").symlink_to(data)
    (data / "cat/dogs").symlink_to("../dog")
    (data / "dog/1.png").symlink_to(outside / "more/0.png")
    (data / ".store").mkdir()
    (data / "dog").rename(data / ".store/dog")  # as git-annex and others keep files
    (data / "dog").symlink_to(".store/dog")
    found = find_images(data)
    by_class = {name: [] for name in found.class_names}
    for path, label in found.files["train"]:
        by_class[found.class_names[label]].append(str(path.relative_to(data)))
    again = [f"cat/again/{index}.png" for index in range(3)]
    assert by_class == {"cat": ["cat/0.png", *again], "dog": ["dog/0.png", "dog/1.png"]}
    assert found.left_out.counts["link to a folder that is read anyway"] == 5


def test_what_is_of_the_system_is_no_class_and_no_image(tmp_path):
    for name in ("cat", "dog", "@eaDir", "lost+found", "#recycle", "cat/@eaDir"):
        paint(tmp_path / name / "0.jpg")
    paint(tmp_path / "cat/._0.jpg", "PNG")
    found = find_images(tmp_path)
    assert found.class_names == ("cat", "dog") and not found.skipped
    assert len(found.files["train"]) == 2
    assert found.left_out.counts == {"of a system, not of the data": 5}


def test_float_pixels_and_images_without_end_keep_their_reason(tmp_path, monkeypatch):
    for name in ("a", "b"):
        paint(tmp_path / name / "0.png")
        Image.fromarray(np.ones((4, 4), "f4")).save(tmp_path / name / "f.tif")
    paint(tmp_path / "a/large.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    found = find_images(tmp_path)
    assert found.left_out.counts == {
        "32-bit pixels have no agreed white": 2,
        "more than 800 pixels, which is Pillow's limit": 1,
    }
    (tmp_path / "b/0.png").unlink()
    with pytest.raises(ValueError, match="none of b .1: 32-bit pixels have no agreed"):
        find_images(tmp_path)


def test_a_phones_photograph_is_told_what_to_install(tmp_path, without_heic):
    for name in ("a.heic", "a.jpg"):
        (tmp_path / name).write_bytes(HEIC)
        with pytest.raises(
            UnreadableError, match=r"pip install 'keras-vit-edge\[heif\]'"
        ):
            open_image(tmp_path / name)


def test_a_phones_photograph_is_read_with_the_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    paint(tmp_path / "a.heic", "HEIF", size=(64, 48))
    assert list(image_names(tmp_path)) == ["a.heic"]
    assert open_image(tmp_path / "a.heic").size == (64, 48)
