"""Damaged images and models: one line each, no crash, no hang."""

import io
import random
import zlib

import numpy as np
import pytest
from damage import ROOT, bad, damaged, mutated, outcomes
from keras_vit_export import metadata
from PIL import Image

DIGITS = ROOT / "models/digits.tflite"
PICTURE = ROOT / "models/3-shows-3.png"


def whole_images():
    """Files of every format and mode that people have, whole, with their endings."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (12, 16, 3), "uint8")
    picture = Image.fromarray(noise).resize((40, 30))
    frames = [picture.rotate(angle) for angle in (90, 180)]
    alpha = picture.convert("RGBA")
    alpha.putalpha(picture.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype("uint16") * 257)
    animated = {"save_all": True, "append_images": frames}
    modes = {"L": "L", "grey alpha": "LA", "bits": "1", "palette": "P"}
    grey = {name: picture.convert(mode) for name, mode in modes.items()}
    cases = [
        ("jpg", picture, {}),
        ("jpg", picture, {"progressive": True, "exif": turned}),
        ("jpg", grey["L"], {"exif": turned}),
        ("jpg", picture.convert("CMYK"), {}),
        ("png", picture, {}),
        ("png", alpha, {"exif": turned}),
        ("png", grey["grey alpha"], {}),
        ("png", grey["bits"], {}),
        ("png", grey["palette"], {"transparency": 0}),
        ("png", deep, {}),
        ("png", picture, animated),
        ("gif", picture, animated),
        ("gif", grey["palette"], {"transparency": 3}),
        ("bmp", picture, {}),
        ("bmp", grey["palette"], {}),
        ("bmp", grey["bits"], {}),
        ("webp", picture, {"exif": turned}),
        ("webp", alpha, {"lossless": True}),
        ("webp", picture, animated),
        ("tif", picture, {}),
        ("tif", picture, {"compression": "tiff_lzw"}),
        ("tif", picture, {"compression": "tiff_adobe_deflate", **animated}),
        ("tif", picture, {"compression": "jpeg"}),
        ("tif", grey["bits"], {"compression": "group4"}),
        ("tif", picture.convert("CMYK"), {}),
        ("tif", deep, {}),
        ("tif", alpha, {}),
    ]
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    files = []
    for suffix, image, options in cases:
        file = io.BytesIO()
        image.save(file, formats.get(suffix, suffix.upper()), **options)
        files.append((suffix, file.getvalue()))
    return files


def bombs():
    """Small files that ask for much memory."""

    def chunk(kind, content):
        length = len(content).to_bytes(4, "big")
        return length + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    def png(side, *chunks):
        head = side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
        return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", head), *chunks])

    zeros = zlib.compress(bytes(30 << 20), 9)
    gif = b"GIF89a" + b"\xff" * 4 + b"\xf0\0\0" + bytes(6)
    part = b"," + bytes(4) + b"\xff" * 4 + b"\0\x02\x02\x44\x01\0;"
    return [
        ("png", png(60_000, chunk(b"IDAT", zeros), chunk(b"IEND", b""))),
        ("png", png(100, chunk(b"zTXt", b"a\0\0" + zeros), chunk(b"IDAT", zeros))),
        ("png", png(12_000, chunk(b"IDAT", zeros), chunk(b"IEND", b""))),
        ("gif", gif + part),
        (
            "bmp",
            b"BM" + bytes(12) + b"\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + bytes(40),
        ),
    ]


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.long)])
def test_no_damaged_image_does_more_than_a_line(count, tmp_path):
    rng, paths = random.Random(0), []
    sources = whole_images()
    files = [*sources, *bombs()]
    for index in range(count):
        suffix, content = sources[index % len(sources)]
        files.append((suffix, mutated(content, rng)))
    for index, (suffix, content) in enumerate(files):
        paths.append(tmp_path / f"{index}.{suffix}")
        paths[-1].write_bytes(content)
    pairs = [(DIGITS, path) for path in paths]
    found = outcomes(pairs, tmp_path)
    assert not bad(pairs, found)
    assert found[: len(sources)] == ["answered"] * len(sources)
    assert found.count("refused") > count / 4


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.long)])
def test_no_damaged_model_does_more_than_a_line(count, tmp_path):
    content = DIGITS.read_bytes()
    names, contract = metadata.read(content)
    whole = metadata.attach(content[: content.index(b"PK\3\4")], names, contract)
    models = damaged(whole, count, random.Random(0), tmp_path)
    pairs = [(model, PICTURE) for model in models]
    found = outcomes(pairs, tmp_path)
    assert not bad(pairs, found)
    assert found[0] == "answered"
    assert found.count("refused") >= 0.95 * count
