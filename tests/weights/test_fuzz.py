"""Mutated files: an error in one line, or a model that is the file's own.

A change inside the numbers themselves may load, as the formats permit; a change of a
header, a length, a name, a type, a shape or an offset must not load as something else.
"""

import json
import random
import warnings

import numpy as np
import pytest

from keras_vit.weights import load_checkpoint
from tests.weights import dialects
from tests.weights.dialects import Size

SIZE = Size(width=4, depth=1, num_heads=1, mlp_dim=4, patch=2, grid=(1, 1), classes=2)
OPTIONS = {"preprocessing": "imagenet", "num_heads": 1}
KINDS = ("timm", "hugging_face", "google")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each format: its bytes, where its numbers begin, and the weights it gives."""
    folder = tmp_path_factory.mktemp("whole")
    w = dialects.weights(np.random.default_rng(0), SIZE)
    arrays = {
        "timm": w,
        "hugging_face": dialects.hugging_face(w, SIZE),
        "google": dialects.google(w, SIZE, "vit_jax"),
    }
    found = {}
    for kind in KINDS:
        path = folder / kind
        if kind == "google":
            dialects.write_npz(path.with_suffix(".npz"), arrays[kind])
            content = path.with_suffix(".npz").read_bytes()
            begin = len(content)  # numbers have a CRC, so all of it is checked
        else:
            content = dialects.safetensors_bytes(arrays[kind])
            begin = 8 + int.from_bytes(content[:8], "little")
        path.write_bytes(content)
        found[kind] = content, begin, load_checkpoint(path, **OPTIONS).get_weights()
    return found


def mutated(content, begin, rng):
    """One change, mostly where the structure is."""
    place = rng.randrange(begin if rng.random() < 0.8 else len(content))
    change = rng.choice(("bit", "byte", "cut", "insert", "remove", "copy", "digit"))
    if change == "bit":
        byte = content[place] ^ (1 << rng.randrange(8))
        return content[:place] + bytes([byte]) + content[place + 1 :]
    if change == "byte":
        byte = bytes([rng.randrange(256)])
        return content[:place] + byte + content[place + 1 :]
    if change == "cut":
        return content[:place]
    size = rng.choice((1, 2, 8, 60))
    if change == "insert":
        return content[:place] + rng.randbytes(size) + content[place:]
    if change == "remove":
        return content[:place] + content[place + size :]
    if change == "copy":
        source = rng.randrange(len(content))
        part = content[source : source + size]
        return content[:place] + part + content[place + len(part) :]
    digits = [i for i in range(begin) if content[i : i + 1].isdigit()]
    place = rng.choice(digits)
    digit = str(rng.randrange(10)).encode()
    return content[:place] + digit + content[place + 1 :]


def check(path, kind, content, files):
    """Loads or is refused; loaded, the structure is the file's own."""
    whole, begin, expected = files[kind]
    path.write_bytes(content)
    try:
        model = load_checkpoint(path, **OPTIONS)
    except ValueError as error:
        assert str(error)
        return False
    weights = model.get_weights()
    assert [it.shape for it in weights] == [it.shape for it in expected]
    same = all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))
    numbers_only = (
        kind != "google"
        and len(content) == len(whole)
        and content[:begin] == whole[:begin]
    )
    assert same or numbers_only, "a change of the structure loaded as something else"
    return True


def fuzz(kind, count, seed, files, tmp_path):
    rng, loaded = random.Random(seed), 0
    whole, begin, _ = files[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of numbers that overflow
        for number in range(count):
            content = mutated(whole, begin, rng)
            try:
                loaded += check(tmp_path / "mutated", kind, content, files)
            except BaseException:
                (tmp_path / "failed").write_bytes(content)
                print(f"{kind} {seed} {number}: {tmp_path / 'failed'}")
                raise
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_or_load_as_they_were(kind, files, tmp_path):
    loaded = fuzz(kind, 100, 0, files, tmp_path)
    assert loaded < 50, "nearly all of it is checked"


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutated_files_of_each_format(kind, files, tmp_path):
    fuzz(kind, 1000, 1, files, tmp_path)


@pytest.mark.parametrize(
    "kind", ["timm", pytest.param("hugging_face", marks=pytest.mark.long)]
)
def test_every_field_of_a_header_is_checked(kind, files, tmp_path):
    """Types, shapes and offsets changed one at a time, the header still JSON."""
    whole, begin, _ = files[kind]
    header = json.loads(whole[8:begin])
    for name, entry in header.items():
        begin_at, end_at = entry["data_offsets"]
        changes = [
            {"dtype": "I32"},
            {"dtype": "F16"},
            {"dtype": "F64"},
            {"shape": [*entry["shape"], 1]},
            {"shape": entry["shape"][::-1] + [1]},
            {"shape": [-1]},
            {"data_offsets": [begin_at, end_at + 4]},
            {"data_offsets": [begin_at + 4, end_at]},
            {"data_offsets": [end_at, begin_at]},
        ]
        for change in changes:
            text = json.dumps(header | {name: entry | change}).encode()
            content = len(text).to_bytes(8, "little") + text + whole[begin:]
            assert not check(tmp_path / "mutated", kind, content, files), change
        renamed = {k if k != name else f"{k}x": v for k, v in header.items()}
        text = json.dumps(renamed).encode()
        content = len(text).to_bytes(8, "little") + text + whole[begin:]
        assert not check(tmp_path / "mutated", kind, content, files)
