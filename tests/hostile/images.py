"""Images that no camera makes: any format under any name, sizes and fields that lie."""

import contextlib
import io
import os
import pathlib
import random

import numpy as np
from keras_vit_device.classifier import Classifier
from keras_vit_device.images import image_names
from PIL import Image

from tests.device.bulk.running import DIGITS, read
from tests.hostile.damage import mutated
from tests.hostile.saying import refusal, said

PICTURE = DIGITS.with_name("3-shows-3.png")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F")
SIDES = (1, 1, 2, 7, 8, 63, 200, 3000)
SUFFIXES = ("png", "jpg", "JPEG", "gif", "webp", "tif", "bmp", "heic", "pdf", "", "eps")
EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _picture(rng: random.Random) -> Image.Image:
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    if rng.random() < 0.05:
        width = rng.choice((100_000, 1_000_000, 1_000_001))
        height = 1
    noise = np.frombuffer(rng.randbytes(3 * 64), "uint8").reshape(8, 8, 3)
    image = Image.fromarray(noise).resize((width, height))
    mode = rng.choice(MODES)
    try:
        return image.convert(mode)
    except ValueError:
        return image.convert("L").convert(mode)


def _exif(rng: random.Random) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = rng.choice((0, 1, 3, 6, 8, 9, 65535, "x", 1.5))
    exif[rng.randrange(2**16)] = rng.choice(("\0\x1b[2J", "9" * 60_000, 7))
    return exif


def _saved(rng: random.Random) -> bytes:
    """In a format that Pillow writes, whether it reads it again or not."""
    Image.init()
    while True:
        image, file = _picture(rng), io.BytesIO()
        form = rng.choice(sorted(Image.SAVE))
        frames = [image.copy() for _ in range(rng.choice((1, 1, 2, 30)))]
        options = rng.choice(
            [
                {},
                {"exif": _exif(rng)},
                {"save_all": True, "append_images": frames},
                {"icc_profile": rng.randbytes(rng.choice((1, 200)))},
                {"dpi": (rng.choice((0, 1e-9, 1e9)),) * 2},
            ]
        )
        # Not every format has every mode and option.
        with contextlib.suppress(Exception):
            image.save(file, form, **options)
            if len(file.getvalue()) < 2**22:
                return file.getvalue()


def _lying(content: bytes, rng: random.Random) -> bytes:
    """With a few numbers of its first bytes, where sizes are, changed to extremes."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 2, 4))):
        size = rng.choice((1, 2, 4))
        place = rng.randrange(max(1, min(120, len(content) - size)))
        number = rng.choice(EXTREMES) % 256**size
        content[place : place + size] = number.to_bytes(
            size, rng.choice(("little", "big"))
        )
    return bytes(content)


def hostile_image(rng: random.Random) -> tuple[str, bytes]:
    """A suffix, and what a file of it holds."""
    content = _saved(rng)
    kind = rng.randrange(6)
    if kind == 1:
        content = _lying(content, rng)
    elif kind == 2:
        content = mutated(content, rng)
    elif kind == 3:  # two in one
        content += _saved(rng)
    elif kind == 4:
        content = rng.randbytes(rng.choice((0, 1, 12, 500))) + content
    elif kind == 5 and rng.random() < 0.5:
        content = rng.choice((b"", b"\0", b"GIF89a", b"%!PS\nquit\n", b"II*\0" * 9))
    return rng.choice(SUFFIXES), content


def classify(rng: random.Random) -> str:
    """By Python and by the command: the same end."""
    suffix, content = hostile_image(rng)
    path = pathlib.Path(f"image.{suffix}" if suffix else "image")
    path.write_bytes(content)
    classifier, answer = Classifier(DIGITS), {}
    reason = refusal(lambda: answer.update(classifier(path)))
    assert bool(reason) == (not answer)
    assert not answer or abs(sum(answer.values()) - 1) < 0.01
    status, out, err = said("classify", DIGITS, path)
    assert (status, len(out), len(err)) == ((2, 0, 1) if reason else (0, 1, 0)), err
    return "refused" if reason else "answered"


def classify_folder(rng: random.Random) -> str:
    """Every image of a folder has its row, in order, whatever it is and is called."""
    folder = pathlib.Path("images").absolute()
    folder.mkdir()
    _fill(folder, rng, rng.choice((1, 5, 20)))
    names = list(image_names(folder))
    status, _, err = said(
        "classify", DIGITS, folder, "--output", "out.csv", "--workers", 1
    )
    if not names:
        assert status == 2 and len(err) == 1
        return "none"
    rows = read(pathlib.Path("out.csv").read_bytes())
    assert status == 0 and [row["file"] for row in rows] == names
    assert all(bool(row["class"]) != bool(row["error"]) for row in rows)
    return "all refused" if all(row["error"] for row in rows) else "answered"


def _fill(folder: pathlib.Path, rng: random.Random, count: int) -> None:
    """Images in folders, with links and pipes, of names that nobody gives."""
    places, made = [os.fsencode(folder)], 0
    while made < count:
        path = os.path.join(rng.choice(places), hostile_name(rng))
        if len(path) > 3000 or os.path.lexists(path):
            continue
        kind = rng.random()
        if kind < 0.1:
            os.mkdir(path)
            places.append(path)
        elif kind < 0.15:
            os.symlink(rng.choice((*places, path, b"nowhere", b"..")), path)
        elif kind < 0.17:
            os.mkfifo(path)
        else:
            with open(path + b".png", "wb") as file:
                file.write(hostile_image(rng)[1])
            made += 1


def hostile_name(rng: random.Random) -> bytes:
    """What a file may be called where only `/` and NUL may not be."""
    letters = (*range(1, 47), *range(48, 256))
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(rng.choices(letters, k=rng.choice((1, 8, 200))))
    if kind == 1:
        text = "".join(chr(rng.randrange(0x20, 0x3000)) for _ in range(8))
        return text.encode().replace(b"/", b"") or b"x"
    if kind == 2:
        return rng.choice(
            (b"a\nb", b'"', b"'$(touch x)'", b"-", b"--", b"\x1b[2J", b",")
        )
    return b"%d" % rng.randrange(10**6)
