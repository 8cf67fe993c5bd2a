"""Files are damaged, and tried in processes whose deaths by a signal are counted."""

import io
import json
import os
import pathlib
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
# Files a process, so that few are lost with one that dies.
BATCH = 50
# Most seconds that a file may take, of a machine that has other work too.
PATIENCE = 20

# Takes pairs of a model and an image from a file in JSON, and says how each ended.
TRY = """
import contextlib, io, json, resource, sys, time
from keras_vit_cli.main import main
from keras_vit_device.classifier import Classifier

# What asks for more is refused memory instead of taking the machine's.
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

def by_interface(model, image):
    try:
        answer = Classifier(model)(image)
    except (OSError, ValueError) as error:
        assert str(error) and "\\n" not in str(error), error
        return "refused"
    assert abs(sum(answer.values()) - 1) < 0.01, answer
    return "answered"

def by_command(model, image):
    streams = [io.TextIOWrapper(io.BytesIO()) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main(["classify", model, image])
    out, err = (it.buffer.getvalue().decode() for it in streams if not it.flush())
    lines = len(out.splitlines()), len(err.splitlines())
    assert lines == {0: (1, 0), 2: (0, 1)}[status], (status, out, err)
    return {0: "answered", 2: "refused"}[status]

for model, image in json.load(open(sys.argv[1])):
    begin, path = time.perf_counter(), (model, image)
    print(json.dumps("begin"), flush=True)
    try:
        found = by_interface(*path), by_command(*path)
        assert len(set(found)) == 1, found
        assert time.perf_counter() - begin < float(sys.argv[2]), "took too long"
        print(json.dumps(found[0]), flush=True)
    except BaseException as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""


def outcomes(pairs, folder, python=sys.executable, patience=PATIENCE):
    """How each pair of a model and an image ended: answered, refused, or badly.

    Args:
        pairs: Paths of a model and of an image.
        folder: Where a file is written that lists them.
        python: The Python that tries them.
        patience: Most seconds that a pair may take.
    """
    found = []
    while len(found) < len(pairs):
        some = pairs[len(found) : len(found) + BATCH]
        (folder / "pairs.json").write_text(json.dumps([[*map(str, it)] for it in some]))
        run = subprocess.run(
            [python, "-c", TRY, folder / "pairs.json", str(patience)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=BATCH * patience,
        )
        assert "Traceback" not in run.stderr, run.stderr
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        ended = [line for line in lines if line != "begin"]
        if len(ended) < len(some):  # the last that began took the process with it
            ended.append(f"died with status {run.returncode}: {run.stderr[-500:]}")
        found += ended
    return found


def bad(pairs, found):
    return [
        (*pair, how)
        for pair, how in zip(pairs, found, strict=True)
        if how not in ("answered", "refused")
    ]


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


def mutated(content, rng):
    """The content with some damage of a random kind."""
    content = bytearray(content)
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((1, 4, 64, 1000)))
    kind = rng.randrange(7)
    if kind == 0:
        return bytes(content[:start])
    if kind == 1:
        for place in rng.choices(range(len(content)), k=rng.choice((1, 3, 20))):
            content[place] ^= 1 << rng.randrange(8)
    elif kind == 2:  # where sizes are
        for place in rng.choices(range(min(len(content), 64)), k=3):
            content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 3:
        content[start:stop] = bytes(stop - start)
    elif kind == 4:
        del content[start:stop]
    elif kind == 5:
        content[start:start] = content[start:stop]
    else:
        content[start:stop] = rng.randbytes(stop - start)
    return bytes(content)


def damaged(content, count, rng, folder):
    """Files in the folder: the first has the content as it is, `count` a damaged one."""
    paths = [folder / f"{index}.tflite" for index in range(count + 1)]
    for path in paths:
        path.write_bytes(content if path == paths[0] else mutated(content, rng))
    return paths
