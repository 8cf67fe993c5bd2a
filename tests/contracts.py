"""Files whose contract was changed, and whether they are taken: for Python and the page."""

import io
import json
import pathlib
import zipfile
from collections.abc import Iterator

DIGITS = pathlib.Path(__file__).parents[1] / "models/digits.tflite"
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
        end = min(it.header_offset for it in archive.infolist())
        contract = json.loads(archive.read(CONTRACT))
        return content[:end], contract, archive.read(LABELS)


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
