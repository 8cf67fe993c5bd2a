"""Names of files and classes can't write to the terminal but as text."""

import io
import json
import pathlib
import re
import shutil
import zipfile

import pytest
from keras_vit_cli.main import main
from keras_vit_device.classifier import Classifier
from keras_vit_device.terminal import one_line, printable
from keras_vit_device.tflite import labels, metadata

from tests.device.bulk.running import DIGITS
from tests.hostile.archives import flatbuffer
from tests.hostile.images import PICTURE

ROOT = pathlib.Path(__file__).parents[2]
CLI = ROOT / "export/keras_vit_cli"
# They would clear the screen, write over a line, add one, change the title, turn text.
NAMES = ("a\x1b[2Jb", "a\rb", "a\nb: cat 99%", "\x1b]0;title\x07", "a\u202eb", "a\x9bb")


def assert_plain(text):
    assert all(it.isprintable() for it in text.replace("\n", "")), repr(text)


def flat():
    return flatbuffer(DIGITS.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_one_line(name, tmp_path, capfd):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(PICTURE, folder / f"{name}.png")
    (folder / f"{name}.jpg").write_bytes(b"no image")
    (folder / f"{name}.txt").write_bytes(b"no image")
    output = tmp_path / "out.csv"
    assert main(["classify", str(DIGITS), str(folder)]) == 2
    assert main(["classify", str(DIGITS), str(folder), "--output", str(output)]) == 0
    assert main(["classify", str(DIGITS), str(folder / f"{name}.gif")]) == 2
    assert main(["inspect", str(folder / f"{name}.tflite")]) == 2
    shown = capfd.readouterr()
    for text in (shown.out, shown.err):
        assert_plain(text)
    first, *others = shown.out.splitlines()
    assert printable(name) in first and ": 3 9" in first
    assert len(others) == 3 and len(shown.err.splitlines()) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_any_name_is_text(name, tmp_path, capfd):
    file = io.BytesIO(flat())
    with zipfile.ZipFile(file, "a") as archive:
        names = [name.replace("\n", " ").replace("\r", " "), *map(str, range(1, 10))]
        archive.writestr("labels.txt", "\r\n".join(names))
    path = tmp_path / "model.tflite"
    path.write_bytes(file.getvalue())
    scale = ["--input-scale", "0..255"]
    assert main(["classify", str(path), str(PICTURE), *scale]) == 0
    assert main(["inspect", str(path)]) == 0
    shown = capfd.readouterr()
    assert_plain(shown.out + shown.err)
    assert Classifier(path, input_scale="0..255").class_names[1:] == tuple("123456789")


def test_class_names_are_made_text_and_stay_apart():
    assert labels.parse(b"a\r\nb\r\n") == ("a", "b")
    names = labels.told_apart(["a\x1b", "a\\x1b", "", "plain, 日本 é"])
    assert names == ("a\\x1b (0)", "a\\x1b (1)", "class 2", "plain, 日本 é")


@pytest.mark.parametrize("field", ["recipe", "top1", "images", "agreement", "sha256"])
@pytest.mark.parametrize("value", ["\x1b[2J", 7.5, [], {}, True, -1])
def test_a_report_that_was_changed_is_refused_in_a_line(field, value, tmp_path, capfd):
    attached = metadata.read(DIGITS.read_bytes())
    content = flat()
    path = tmp_path / "model.tflite"
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        contract = attached.contract | {field: value}
        archive.writestr("keras_vit.json", json.dumps(contract))
    path.write_bytes(buffer.getvalue())
    for command in (["inspect", path], ["classify", path, PICTURE]):
        assert main([*map(str, command)]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert f"its {field} is" in line
        assert_plain(line)


def test_what_can_be_shown_stays_and_the_rest_is_an_escape():
    assert printable("é 日本 😀 it's") == "é 日本 😀 it's"
    assert printable("\x1b\n\u202e\udc80\U000e0001") == r"\x1b\n\u202e\udc80\U000e0001"
    assert one_line("a \n b\x1b") == r"a b\x1b"


def test_every_line_of_a_command_is_said():
    for path in CLI.rglob("*.py"):
        assert not re.search(r"(?<!\w)print\(", path.read_text()), path.name
