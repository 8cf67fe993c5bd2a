"""Files whose contract was changed, and whether they are taken: for Python and the page."""

import io
import json
import pathlib
import random
import zipfile
from collections.abc import Iterator

from keras_vit_device.classifier import Classifier

from tests.device.bulk.running import DIGITS
from tests.hostile.archives import VALUES, changed_json, flatbuffer
from tests.hostile.images import PICTURE
from tests.hostile.saying import refusal, said

CONTRACT, LABELS = "keras_vit.json", "labels.txt"
# Fields of `preprocessing`.
RULES = {
    "taken": [
        {"crop": 1},
        {"crop": 0.01},
        {"crop": 0.875, "resize": "crop", "interpolation": "bicubic"},
        {"interpolation": "nearest"},
    ],
    "refused": [
        *({"crop": it} for it in (0, False, True, 1e-300, -1, 1.001, "1", None, [1])),
        *({"resize": it} for it in ("", "Stretch", "pad", 0, None, ["crop"], {})),
        *({"interpolation": it} for it in ("lanczos", "", None, 1, ["nearest"])),
        *({"image_size": it} for it in (8, [8], [8, 9], [8, 8, 1], [10**9, 10**9])),
        *({"image_size": it} for it in ("8,8", None, [-8, -8], [True, 8], {})),
        *({"channels": it} for it in (3, 0, -1, True, "1", None, [1])),
        {"sharpen": 1},
        {"": 0},
        {"__proto__": 1},
    ],
}
# Fields of the contract itself.
FIELDS = {
    "taken": [
        {"top1": None, "agreement": None, "images": None},
        {"top1": 0, "agreement": 1},
        {"recipe": "tomorrow's"},
        {"comment": {"of": ["another", 1]}},
        {"trained_on": []},
    ],
    "refused": [
        *({"recipe": it} for it in (1, None, ["int4"], "a\nb", "\x1b[2J", {})),
        *({"top1": it} for it in (1.5, -0.1, "1", True, [], {"a": 1})),
        *({"agreement": it} for it in (2, "all", False)),
        *({"images": it} for it in (-1, 0.5, "380", True, [])),
        *({"trained_on": it} for it in ("digits", 1, {}, None)),
        *({"sha256": it} for it in (None, 1, "", "0" * 64, "A" * 64, ["0"])),
        *({"preprocessing": it} for it in (None, 1, "stretch", [], True)),
    ],
}
# Whole contracts.
TEXTS = {
    "taken": ["{}"],
    "refused": ["", "[]", "null", "1", '"text"', "{", '{"top1": NaN}', "[" * 100_000],
}


def _content() -> tuple[bytes, dict, bytes]:
    content = DIGITS.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        contract = json.loads(archive.read(CONTRACT))
        return flatbuffer(content), contract, archive.read(LABELS)


def write(contract: str | bytes, names: bytes, packed: str = "") -> bytes:
    """A `.tflite` that carries these; `packed` names what is compressed."""
    file = io.BytesIO(_content()[0])
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in ((LABELS, names), (CONTRACT, contract)):
            kind = zipfile.ZIP_DEFLATED if name == packed else zipfile.ZIP_STORED
            archive.writestr(name, content, kind)
    return file.getvalue()


def cases() -> Iterator[tuple[str, bytes, bool]]:
    """What was changed, the file, and whether it is taken."""
    _, contract, names = _content()
    for ending in ("taken", "refused"):
        taken = ending == "taken"
        for fields in RULES[ending]:
            rule = contract["preprocessing"] | fields
            text = json.dumps(contract | {"preprocessing": rule})
            yield f"preprocessing {fields}", write(text, names), taken
        for fields in FIELDS[ending]:
            yield f"{fields}", write(json.dumps(contract | fields), names), taken
        for text in TEXTS[ending]:
            yield f"contract {text[:20]}", write(text, names), taken
    whole = json.dumps(contract)
    yield "UTF-16", write(whole.encode("utf-16"), names), False
    yield "a byte order mark", write(whole.encode("utf-8-sig"), names), True
    yield "lines of Windows", write(whole, names.replace(b"\n", b"\r\n")), True
    for name in (LABELS, CONTRACT):
        yield f"{name} compressed", write(whole, names, name), False


_VALUES = (
    *VALUES,
    *(
        0.01,
        0.5,
        8,
        2**53,
        -1.0,
        "crop",
        "stretch",
        "nearest",
        [8, 8],
        [8.0, 8],
        [0, 0],
    ),
    *(
        "0" * 64,
        "\u2028",
        "\ud800",
        "\u202e",
        {"__proto__": 1},
        [None] * 10,
        [0.1] * 10,
    ),
)


def changed(rng: random.Random) -> bytes:
    """A `.tflite` whose contract says something else at a few places."""
    _, contract, names = _content()
    for _ in range(rng.choice((1, 1, 2, 4))):
        contract = changed_json(contract, rng, _VALUES)
    if rng.random() < 0.2:
        names = names.replace(
            b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\0", b"\xff"))
        )
    return write(json.dumps(contract), names)


def take(rng: random.Random) -> str:
    """By Python and by the commands: the same end."""
    path = pathlib.Path("changed.tflite")
    path.write_bytes(changed(rng))
    reason = refusal(Classifier, path)
    status, out, err = said("classify", path, PICTURE)
    assert (status, len(out)) == ((2, 0) if reason else (0, 1)), err
    assert len(err) == 1 or not reason  # names that don't fit are remarked on
    status, _, err = said("inspect", path)  # without the self-test
    assert status == 0 or (reason and len(err) == 1), (reason, err)
    return "refused" if reason else "taken"
