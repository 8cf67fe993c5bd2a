"""What can't be classified into a CSV is refused in one line, and nothing is written."""

import shutil

from commands import complaint
from keras_vit_device.bulk import answers
from keras_vit_device.tflite import metadata

from .running import DIGITS, ROOT


def test_a_csv_of_another_model_folder_or_kind_is_refused_and_left(
    digits, whole, tmp_path, capfd
):
    output = tmp_path / "out.csv"
    other = tmp_path / "other.tflite"
    content = DIGITS.read_bytes()
    read = metadata.read(content)
    flatbuffer = content[: content.index(b"PK\x03\x04")]
    contract = read.contract | {"recipe": "another"}
    other.write_bytes(metadata.attach(flatbuffer, read.class_names, contract))

    def line(model, folder):
        before = output.read_bytes()
        shown = complaint(capfd, "classify", model, folder, "--output", output)
        assert output.read_bytes() == before
        return shown

    output.write_bytes(whole)
    assert "holds answers of another model" in line(other, digits)
    assert "images were added or removed" in line(DIGITS, digits / "1")
    few = tmp_path / "few"
    shutil.copytree(digits, few, ignore=shutil.ignore_patterns("599.png"))
    assert "599.png' where" in line(DIGITS, few)
    for text in ("a,b\r\n1,2\r\n", "a", "file,class\r\n", "a\rb", "x" * 200_000):
        output.write_bytes(text.encode())
        assert "is no CSV of classified images" in line(DIGITS, digits)
    damaged = whole.replace(b"\r\n", b"\n", 300)
    output.write_bytes(damaged)
    assert "is no CSV of classified images" in line(DIGITS, digits)


def test_two_runs_do_not_write_one_csv(digits, whole, tmp_path, capfd):
    output = tmp_path / "out.csv"
    with answers.lock(output):
        line = complaint(capfd, "classify", DIGITS, digits, "--output", output)
    assert "is being written by another process" in line


def test_a_users_mistake_is_one_line_and_writes_nothing(digits, tmp_path, capfd):
    output = tmp_path / "out.csv"

    def line(*arguments):
        shown = complaint(capfd, "classify", *arguments)
        assert not output.exists()
        return shown

    out = ["--output", output]
    assert "by a .tflite" in line(ROOT / "models/digits.keras", digits, *out)
    assert "There is no file" in line(tmp_path / "none.tflite", digits, *out)
    assert "There is no folder" in line(DIGITS, tmp_path / "none", *out)
    assert "There is no folder" in line(DIGITS, digits / "0/0.png", *out)
    assert "takes one folder" in line(DIGITS, digits, digits, *out)
    assert "one or more. Received: 0" in line(DIGITS, digits, *out, "--workers", 0)
    assert "--workers needs --output" in line(DIGITS, digits, "--workers", 2)
    assert "is a folder" in line(DIGITS, digits, "--output", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "There is no image" in line(DIGITS, tmp_path / "empty", *out)
    (tmp_path / "bad.tflite").write_bytes(DIGITS.read_bytes()[:1000])
    assert "cut off or is no TFLite" in line(tmp_path / "bad.tflite", digits, *out)
