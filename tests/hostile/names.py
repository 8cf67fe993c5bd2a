"""Names of files and classes of any characters: nothing but text reaches a terminal."""

import io
import os
import pathlib
import random
import shutil
import zipfile

from keras_vit_device.classifier import Classifier

from tests.device.bulk.running import DIGITS
from tests.hostile.archives import flatbuffer
from tests.hostile.images import PICTURE, hostile_name
from tests.hostile.saying import refusal, said


def _text(rng: random.Random) -> str:
    """Characters of every plane, most of those that move, turn or hide."""
    kinds = (
        (0, 0x20),
        (0x7F, 0xA0),
        (0x2000, 0x2070),
        (0x20, 0x7F),
        (0xE0000, 0xE0080),
    )
    letters = (rng.randrange(*rng.choice((*kinds, (0, 0xD800)))) for _ in range(9))
    return "".join(map(chr, letters))


def _tflite(rng: random.Random) -> bytes:
    """A model whose classes have such names, in some encoding."""
    names = [_text(rng) for _ in range(10)]
    encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"))
    content = rng.choice(("\n", "\r\n", "\r")).join(names).encode(encoding, "replace")
    file = io.BytesIO()
    file.write(flatbuffer(DIGITS.read_bytes()))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", content)
    return file.getvalue()


def show(rng: random.Random) -> str:
    """Every command that prints such a name, and the errors that quote one."""
    name = os.fsdecode(hostile_name(rng))
    folder = pathlib.Path("images")
    folder.mkdir()
    image = folder / f"{name}.png"
    shutil.copy(PICTURE, image)
    for ending in (".jpg", ".txt", ".bin"):
        (folder / f"{name}{ending}").write_bytes(rng.randbytes(40))
    model = folder / f"{name}.tflite"
    model.write_bytes(_tflite(rng))
    meaning = ("--input-scale", "0..255")
    if reason := refusal(lambda: Classifier(model, input_scale="0..255")):
        assert said("classify", model, image, *meaning)[0] == 2, reason
    else:
        status, out, err = said("classify", model, image, *meaning)
        assert (status, len(out)) == (0, 1), (out, err)
    for arguments in (
        ("classify", DIGITS, folder),
        ("classify", DIGITS, folder, "--output", "out.csv"),
        ("inspect", model),
        ("import", folder / f"{name}.bin", "--output", "out.keras"),
        ("train", "--data", folder, "--output", "run"),
        (name,),
        ("classify", DIGITS, image, name),
    ):
        said(*arguments)
    return "refused" if reason else "shown"
