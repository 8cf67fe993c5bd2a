"""`keras-vit inspect`: what it prints is what stands in the file."""

import json
import pathlib

import numpy as np
from commands import complaint
from foreign import with_contract
from keras_vit_cli.main import main
from keras_vit_device import accelerators
from keras_vit_device.accelerators import Trial
from keras_vit_export import Classifier

DIGITS = pathlib.Path(__file__).parents[2] / "models/digits.tflite"
OLD_LAYOUT = pathlib.Path(__file__).parents[1] / "runtimes/old_layout.tflite"


def test_the_file_says_what_it_is_and_what_was_measured(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    assert main(["inspect", str(DIGITS), "--json", str(figures)]) == 0
    first, *lines = (line.strip() for line in capsys.readouterr().out.splitlines())
    classifier = Classifier(DIGITS)
    top1 = classifier.contract["top1"]
    assert f"recipe dynamic_int8, top-1 {top1:.2%} and agreement" in first
    assert lines[:5] == [
        "input  1 x 8 x 8 x 1 float32, pixels in 0..255",
        "output  1 x 10 float32, a probability for each class",
        "image  stretch, bilinear",
        "self-test  carried; --self-test runs it",
        "classes  0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ]
    facts = json.loads(figures.read_text())
    assert facts["top1"] == top1 and facts["operations"] == classifier.operations
    counts = [int(line.split()[0]) for line in lines[6:]]
    assert lines[5] == f"operations  {sum(counts)}"
    assert lines[6:] and counts == sorted(counts, reverse=True)


def test_a_file_without_accuracy_or_with_integers_says_so(
    capsys, model, pixels, tmp_path
):
    from keras_vit_export.exporter import Exporter

    exporter = Exporter(model, pixels)
    files, _ = exporter.check({"full_int8": exporter.convert("full_int8")})
    path = tmp_path / "bytes.tflite"
    path.write_bytes(files["full_int8"])
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "recipe full_int8, accuracy was not measured" in out
    assert "1 x 8 x 12 x 3 uint8, pixels in 0..255: 1 * (q - 0)" in out


def test_a_file_of_another_exporter_is_described_too(capsys, float_model, tmp_path):
    path = tmp_path / "foreign.tflite"
    path.write_bytes(float_model)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "of another exporter" in out
    assert "the file does not say how it is fitted" in out


def test_a_wrong_file_is_one_line(capfd, tmp_path):
    path = tmp_path / "notes.tflite"
    path.write_text("no model")
    assert "is no TFLite model" in complaint(capfd, "inspect", path)
    assert "There is no file" in complaint(capfd, "inspect", tmp_path / "no.tflite")
    assert "A .tflite file is needed" in complaint(capfd, "inspect", "model.keras")
    assert "is a folder" in complaint(capfd, "inspect", DIGITS, "--json", tmp_path)


def no_gpu(monkeypatch):
    missing = Trial("missing", "no Vulkan")
    monkeypatch.setattr(accelerators, "attempt", lambda *_: missing)


def test_a_self_test_is_run_on_every_accelerator(capsys, monkeypatch, tmp_path):
    no_gpu(monkeypatch)
    figures = tmp_path / "figures.json"
    command = ["inspect", str(OLD_LAYOUT), "--self-test", "--json", str(figures)]
    assert main(command) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (cpu,) = (line for line in lines if line.startswith("CPU"))
    assert cpu.startswith("CPU  wholly, 0.") and cpu.endswith("self-test passed")
    assert "GPU  missing: no Vulkan" in lines
    facts = json.loads(figures.read_text())["accelerators"]
    assert facts["cpu"]["self_test"] == "passed" and facts["gpu"]["runs"] == "missing"

    wrong = np.full((1, 10), 0.1, "float32")
    trial = Trial("wholly", "", wrong, 1.0)
    monkeypatch.setattr(accelerators, "attempt", lambda *_: trial)
    assert main(command) == 3
    out = capsys.readouterr().out
    assert (
        "GPU  wholly, 1.00 ms an image, self-test failed: expected 6 55.1%, got" in out
    )


def test_a_file_that_can_not_prove_itself_says_so(capsys, monkeypatch, tmp_path):
    no_gpu(monkeypatch)
    path = tmp_path / "plain.tflite"
    path.write_bytes(with_contract(OLD_LAYOUT.read_bytes(), self_test=None))
    assert main(["inspect", str(path)]) == 0
    assert "self-test  none: nothing in the file shows" in capsys.readouterr().out
    assert main(["inspect", str(path), "--self-test"]) == 3
    assert "self-test not carried" in capsys.readouterr().out


def test_a_file_that_fails_on_the_cpu_is_shown_all_the_same(
    capsys, monkeypatch, tmp_path
):
    no_gpu(monkeypatch)
    content = OLD_LAYOUT.read_bytes()
    test = Classifier(OLD_LAYOUT).contract["self_test"]
    wrong = test | {"probabilities": test["probabilities"][::-1]}
    path = tmp_path / "wrong.tflite"
    path.write_bytes(with_contract(content, self_test=wrong))
    assert main(["inspect", str(path), "--self-test"]) == 3
    assert "self-test failed: expected 3 55.1%, got 6" in capsys.readouterr().out
