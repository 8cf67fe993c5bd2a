"""What is in the CSV, whoever wrote it."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from foreign import converted
from keras_vit_cli.main import main
from keras_vit_device import bulk
from keras_vit_device.bulk.workers import _row
from keras_vit_export import Classifier
from sklearn.datasets import load_digits

from .running import DIGITS, ROOT, finished, read, start


def test_a_csv_has_one_row_an_image_in_order_with_the_three_best(digits, whole):
    rows = read(whole)
    names = sorted(path.relative_to(digits) for path in digits.rglob("*.png"))
    assert [row["file"] for row in rows] == list(map(str, names))
    classifier = Classifier(DIGITS)
    for row in rows[::50]:
        expected = list(classifier(digits / row["file"]).items())[:3]
        columns = ("", "_2", "_3")
        assert expected == [
            (row[f"class{it}"], pytest.approx(float(row[f"probability{it}"]), abs=1e-4))
            for it in columns
        ]
        assert row["error"] == "" and len(row["model"]) == 12
    labels = load_digits().target
    right = [row["class"] == str(labels[int(row["file"][2:-4])]) for row in rows]
    assert np.mean(right) > 0.97


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(workers, digits, whole, tmp_path):
    bulk.classify_folder(DIGITS, digits, tmp_path / "new/out.csv", workers=workers)
    assert (tmp_path / "new/out.csv").read_bytes() == whole


def test_the_command_says_what_it_did_and_a_second_one_has_nothing_to_do(
    digits, whole, tmp_path
):
    for _ in range(2):
        status, out, err = finished(start(digits, tmp_path / "out.csv"))
        assert (status, err) == (0, "")
        assert out == f"600 images in '{tmp_path / 'out.csv'}'\n"
        assert (tmp_path / "out.csv").read_bytes() == whole


def test_broken_images_have_a_row_with_an_error_and_are_listed(digits, tmp_path, capfd):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    shutil.copytree(digits / "0", folder)
    content = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(content[:60])
    (folder / "empty.jpg").touch()
    (folder / "text.gif").write_text("no image")
    figures = tmp_path / "figures.json"
    assert main(["classify", str(DIGITS), str(folder), "--output", str(output)]) == 0
    first = output.read_bytes()
    shown = capfd.readouterr()
    assert "3 unreadable, see the column error: cut.png, empty.jpg, text.gif" in (
        shown.out
    )
    assert shown.err == ""
    broken = [row for row in read(first) if row["error"]]
    assert [row["file"] for row in broken] == ["cut.png", "empty.jpg", "text.gif"]
    for row in broken:
        assert row["class"] == row["probability"] == row["class_3"] == ""
        assert "unreadable or no image" in row["error"]
    again = ["--output", str(output), "--json", str(figures)]
    assert main(["classify", str(DIGITS), str(folder), *again]) == 0
    assert '"unreadable": 3' in figures.read_text()
    assert output.read_bytes() == first


def test_any_name_is_kept_and_what_is_hidden_or_linked_in_a_circle_is_left_out(
    digits, tmp_path
):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    names = [
        "a,b.png",
        'quote".PNG',
        "line\nbreak\r.png",
        os.fsdecode(b"not-utf-8-\xff.png"),
        "été 🐈.png",
        "=1+1.png",
        " .png",
        "deep/er/est.png",
    ]
    hidden = [".hidden.png", ".hidden/a.png", "deep/.b.png"]
    for name in [*names, *hidden]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits / "0/0.png", folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "deep/circle").symlink_to(folder)
    (folder / "nothing.png").symlink_to(folder / "none.png")
    (folder / "linked.png").symlink_to(digits / "0/0.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    status, _, err = finished(start(folder, output))
    assert (status, err) == (0, "")
    rows = read(output.read_bytes())
    expected = sorted([*names, "linked.png"], key=lambda name: name.split("/"))
    assert [row["file"] for row in rows] == expected
    assert {row["class"] for row in rows} == {"0"}
    before = output.read_bytes()
    assert finished(start(folder, output))[0] == 0
    assert output.read_bytes() == before


class OneImage:
    """A classifier of cats and dogs."""

    class_names = ("cat", "dog")

    def __init__(self, answer):
        self.answer = answer

    def read(self, path):
        return path

    def probabilities(self, images):
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.array([self.answer])


def test_two_classes_leave_the_third_empty():
    row = _row(OneImage([0.25, 0.75]), pathlib.Path("folder"), "a.png")
    assert row == ["a.png", "dog", "0.7500", "cat", "0.2500", "", "", ""]


def test_an_image_without_an_answer_has_a_row_with_an_error():
    blind = OneImage(ValueError("The model's answer\nis no number."))
    row = _row(blind, pathlib.Path("folder"), "a.png")
    assert row == ["a.png", *[""] * 6, "The model's answer is no number."]


def test_images_that_come_later_in_the_order_are_added(digits, whole, tmp_path):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    shutil.copytree(digits, folder)
    shutil.move(folder / "6", tmp_path / "6")
    bulk.classify_folder(DIGITS, folder, output, workers=1)
    assert whole.startswith(output.read_bytes())
    shutil.move(tmp_path / "6", folder / "6")
    assert bulk.classify_folder(DIGITS, folder, output, workers=1).images == 600
    assert output.read_bytes() == whole


def test_no_process_of_a_run_loads_tensorflow(digits, tmp_path):
    for name in ("tensorflow", "keras", "keras_vit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was loaded')")
    output = tmp_path / "out.csv"
    command = ["classify", DIGITS, digits / "0", "--output", output]
    subprocess.run(
        [sys.executable, "-m", "keras_vit_cli.main", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "export")},
        check=True,
        capture_output=True,
    )
    assert len(read(output.read_bytes())) == 86


@pytest.mark.filterwarnings("ignore:.*what range its pixels have")
def test_what_is_said_of_a_model_of_another_make_reaches_the_workers(photos, tmp_path):
    model, output = tmp_path / "scores.tflite", tmp_path / "rows.csv"
    model.write_bytes(converted(tf.identity))
    with pytest.raises(ValueError, match="--logits"):
        bulk.classify_folder(model, photos, output)
    said = {"logits": True, "input_scale": "0..1", "class_names": ("a", "b", "c")}
    bulk.classify_folder(model, photos, output, 1, **said)
    first = read(output.read_bytes())[0]
    classifier = Classifier(model, **said)
    best, part = next(iter(classifier(photos / first["file"]).items()))
    assert (first["class"], first["probability"]) == (best, f"{part:.4f}")
    with pytest.raises(ValueError, match="answers of another model"):
        bulk.classify_folder(model, photos, output, 1, logits=True)
