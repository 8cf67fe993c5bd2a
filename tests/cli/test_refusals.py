"""Bad input is one clear line, status 2, nothing half-written."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import complaint
from keras_vit_cli.main import main
from keras_vit_device.files import check_writable, write_together
from keras_vit_export.graph import convert
from PIL import Image

from keras_vit import ViTConfig, build_vit
from keras_vit.files import save_model


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: COMMAND (see keras-vit --help)"),
        (["tran"], "argument COMMAND: invalid choice: 'tran'"),
        (["inspect"], "required: model (see keras-vit inspect --help)"),
        (
            ["train", "--epochs", "many"],
            "argument --epochs: invalid int value: 'many' (see keras-vit train --help)",
        ),
        (["web", "--prot"], "unrecognized arguments: --prot (see keras-vit --help)"),
    ],
)
def test_what_is_no_option_is_one_line(arguments, line, capfd):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capfd.readouterr()
    assert not out and err.startswith("keras-vit: ") and err.count("\n") == 1
    assert line in err


def test_rewrites_can_be_required(tmp_path, capfd):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    output = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    save_model(keras.Model(inputs, output), tmp_path / "other.keras")
    out = tmp_path / "m.tflite"
    arguments = ["export", str(tmp_path / "other.keras"), "--output", str(out)]
    line = complaint(capfd, *arguments, "--rewrites", "required")
    assert "can't be rewritten" in line and "build_vit" in line
    assert not out.exists()
    assert "are logits" in complaint(capfd, *arguments) and not out.exists()
    assert main([*arguments, "--logits"]) == 0
    shown = capfd.readouterr().out
    assert "Not rewritten: config_of reads models" in shown
    assert "Without labelled images nothing was checked" in shown


def test_an_output_that_can_not_be_written_is_one_line(saved, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/m.tflite"
    assert "can't be written" in complaint(capfd, "export", saved, "--output", out)
    # Found out before anything else.
    missing = tmp_path / "missing.keras"
    assert "can't be written" in complaint(capfd, "export", missing, "--output", out)
    # A folder that says it can be written to, and can't.
    if pathlib.Path("/proc/self").is_dir():
        out = pathlib.Path("/proc/self/m.tflite")
        assert "can't be written" in complaint(
            capfd, "export", missing, "--output", out
        )
    assert [path.name for path in tmp_path.iterdir() if "tflite" in path.name] == []


def test_a_report_that_can_not_be_written_leaves_nothing(saved, tmp_path, capfd):
    out = tmp_path / "m.tflite"
    (tmp_path / "m.tflite.html").mkdir()
    assert "m.tflite.html" in complaint(capfd, "export", saved, "--output", out)
    (tmp_path / "m.tflite.html").rmdir()
    line = complaint(capfd, "export", saved, "--output", out, "--json", out)
    assert "the same name" in line
    assert not list(tmp_path.glob("m.tflite*"))
    with pytest.raises(ValueError, match="the same name"):
        check_writable(tmp_path / "a", tmp_path / "b/../a")


def test_only_regular_files_that_are_not_read_are_replaced(saved, tmp_path, capfd):
    before = saved.read_bytes()
    os.mkfifo(tmp_path / "pipe")
    evaluate = ("evaluate", saved, "--dataset", "digits", "--confusion")
    line = complaint(capfd, *evaluate, tmp_path / "pipe")
    assert line.endswith("pipe' is no regular file.")
    assert (tmp_path / "pipe").is_fifo()
    image = tmp_path / "a.png"
    link = tmp_path / "link"
    link.symlink_to(saved)
    for command in (
        (*evaluate, saved),
        (*evaluate, link),
        ("benchmark", saved, "--dataset", "digits", "--html", saved),
        ("export", saved, "--output", tmp_path / "m.tflite", "--json", saved),
        ("classify", saved, image, "--json", image),
        ("classify", saved, tmp_path, "--output", saved),
        ("inspect", "m.tflite", "--json", "m.tflite"),
        ("explain", saved, image, "--output", image),
        ("features", saved, image, "--output", tmp_path / "f.npz", "--json", saved),
        ("export-weights", saved, "--output", tmp_path / "timm", "--json", saved),
        ("web", saved, "--json", saved),
    ):
        assert complaint(capfd, *command).endswith("so it can't be written."), command
    assert saved.read_bytes() == before


def test_an_image_that_is_gone_is_one_line(saved, capfd, monkeypatch):
    def gone(*_):
        message = "OSError: 'a.png' is gone\nTraceback\n\nOSError: 'a.png' is gone\n\n"
        raise tf.errors.UnknownError(None, None, message)

    monkeypatch.setattr("keras_vit_export.report.measure.evaluate", gone)
    line = complaint(capfd, "evaluate", saved, "--dataset", "digits")
    assert line == "keras-vit: 'a.png' is gone"


def test_a_full_disk_is_not_the_models_fault():
    said = "more room than there is. No space left"
    with pytest.raises(OSError, match=said), convert._conversion():
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")


@pytest.mark.parametrize("place", [0, 1])
def test_of_files_that_belong_together_none_has_its_name_before_all_are_written(
    place, tmp_path
):
    contents = [(tmp_path / "a", b"1"), (tmp_path / "b", b"2")]
    contents.insert(place, (tmp_path / "c", "no bytes"))
    with pytest.raises(TypeError):
        write_together(dict(contents))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--dataset", "digits", "--output", "{}/run"),
        ("demo", "--output", "{}/run"),
        ("evaluate", "{}/m.keras", "--dataset", "digits"),
        ("classify", "{}/m.keras", "{}/photo.png"),
    ],
    ids=lambda command: command[0],
)
def test_json_that_can_not_be_written_is_found_out_before_the_work(
    command, tmp_path, capfd
):
    given = [part.format(tmp_path) for part in command]
    line = complaint(capfd, *given, "--json", tmp_path)
    assert line == f"keras-vit: '{tmp_path}' is a folder."
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_one_line(tmp_path, capfd):
    config = ViTConfig.from_variant(
        "nano/4", image_size=8, channels=1, num_classes=3, depth=1
    )
    broken = build_vit(config)
    broken.get_layer("block_00_mlp").hidden.bias.assign([np.nan] * 256)
    save_model(broken, tmp_path / "nan.keras")
    out = tmp_path / "m.tflite"
    line = complaint(capfd, "export", tmp_path / "nan.keras", "--output", out)
    assert "block_00_mlp/hidden/bias" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "nano/3"], ["patch_size", "stem"]),
        (["--variant", "S/3"], ["patch_size must divide image_size", "(8, 8)"]),
        (["--variant", "nan/2"], ["variant", "nano", "'nan'"]),
        (["--variant", "nano"], ["patch side"]),
        (["--dataset", "digit"], ["Nearest: digits"]),
        (["--dataset", "./none"], ["no folder of images"]),
        (["--epochs", 0], ["epochs", "0"]),
        (["--learning-rate", -1], ["learning_rate", "-1"]),
        (["--resize", "crap"], ["resize", "crop", "'crap'"]),
        (["--batch-size", 0], ["batch", "0"]),
    ],
)
def test_a_wrong_training_is_refused_and_leaves_no_folder(
    arguments, words, tmp_path, capfd
):
    folder = tmp_path / "run"
    size = ["--image-size", 8] if "S/3" in arguments else []
    line = complaint(
        capfd, "train", "--dataset", "digits", "--output", folder, *size, *arguments
    )
    assert all(word in line for word in words), line
    assert not folder.exists()


def test_a_folder_that_holds_a_run_is_refused(tmp_path, capfd):
    (tmp_path / "run.json").write_text("{}")
    line = complaint(capfd, "train", "--dataset", "digits", "--output", tmp_path)
    assert "already holds a run" in line
    line = complaint(capfd, "demo", "--output", tmp_path)
    assert "already holds a run" in line
    assert (tmp_path / "run.json").read_text() == "{}"


def test_empty_and_one_class_folders_are_refused(tmp_path, capfd):
    root = tmp_path / "images"
    root.mkdir()
    arguments = ["train", "--dataset", root, "--output", tmp_path / "run"]
    assert "at least two subfolders" in complaint(capfd, *arguments)
    (root / "cats").mkdir()
    assert "Received: 1 in" in complaint(capfd, *arguments)
    (root / "dogs").mkdir()
    assert "none of cats, dogs" in complaint(capfd, *arguments)
    assert not (tmp_path / "run").exists()


def test_broken_files_are_refused_by_flag(photos, tmp_path, capfd):
    arguments = [
        "--dataset",
        photos,
        "--broken",
        "refuse",
        "--output",
        tmp_path / "run",
    ]
    assert "1 unreadable: " in complaint(capfd, "train", *arguments)


@pytest.mark.parametrize("kind", ["keras", "tflite"])
@pytest.mark.parametrize("command", ["evaluate", "classify"])
def test_a_missing_or_cut_off_model_is_refused(
    kind, command, saved, tmp_path, capfd, digit
):
    path = tmp_path / f"cut.{kind}"
    rest = ["--dataset", "digits"] if command == "evaluate" else [digit[0]]
    assert "There is no file" in complaint(capfd, command, path, *rest)
    path.write_bytes(saved.read_bytes()[:5000])
    assert "is cut off or is no" in complaint(capfd, command, path, *rest)
    assert not list(tmp_path.glob("*confusion*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "int8"], "one of int4"),
        (["--recipe", "static_int8"], "needs --dataset, to measure the ranges"),
        (["--recipe", "auto"], "needs --dataset, to measure top-1"),
        (["--rewrites", "never"], "rewrites must be one of"),
        (["--output", "x.bin"], "must end in .tflite"),
        (["--max-drop", "1"], "needs --dataset"),
        (["--dataset", "digitz"], "Nearest: digits"),
    ],
)
def test_a_wrong_export_is_refused_and_writes_nothing(
    arguments, words, saved, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    line = complaint(capfd, "export", saved, "--output", "out.tflite", *arguments)
    assert words in line
    assert set(tmp_path.iterdir()) == before


def test_a_model_of_other_classes_is_refused(saved, photos, capfd):
    line = complaint(capfd, "evaluate", saved, "--dataset", photos)
    assert "differ in their classes" in line
    assert "2 (dark, light)" in line


def test_a_file_of_another_kind_is_refused(tmp_path, capfd, digit):
    (tmp_path / "model.h5").write_bytes(b"x")
    line = complaint(capfd, "classify", tmp_path / "model.h5", digit[0])
    assert ".keras or a .tflite" in line


def test_classify_names_what_it_cannot_read_and_goes_on(saved, photos, capfd):
    assert main(["classify", str(saved), str(photos / "dark")]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 20, "a folder's images only"
    bad = photos / "dark/notes.txt"
    assert main(["classify", str(saved), str(bad), str(photos / "light/0.png")]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith(f"'{bad}' is unreadable or no image")
    assert len(captured.err.splitlines()) == 1
    assert len(captured.out.splitlines()) == 1


def test_images_that_are_not_there_are_named(saved, tmp_path, capfd):
    line = complaint(capfd, "classify", saved, tmp_path / "none.png")
    assert "none.png" in line


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A model with a layer that a module of the user's own registers, saved."""
    (tmp_path / "own_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable(package='own')\n"
        "class Halve(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return x / 2\n"
    )
    script = (
        "import keras, own_layers; i = keras.Input((4, 4, 3));"
        "x = keras.layers.GlobalAveragePooling2D()(own_layers.Halve()(i));"
        "x = keras.layers.Dense(3, activation='softmax')(x);"
        "keras.Model(i, x).save('own.keras')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "own.keras"
    sys.modules.pop("own_layers", None)


def test_classes_of_ones_own_are_named_and_imported(own, capfd):
    Image.new("RGB", (4, 4), "red").save("red.png")
    line = complaint(capfd, "classify", own, "red.png")
    assert "Halve of own_layers" in line and "--import own_layers" in line
    assert main(["classify", str(own), "red.png", "--import", "own_layers"]) == 0
    assert "class " in capfd.readouterr().out
    line = complaint(capfd, "classify", own, "red.png", "--import", "none_such")
    assert "--import none_such failed. ModuleNotFoundError" in line
    pathlib.Path("ends.py").write_text("raise SystemExit(0)")
    line = complaint(capfd, "classify", own, "red.png", "--import", "ends")
    assert "--import ends failed. SystemExit" in line


def test_code_in_a_file_is_not_run_and_said_so(tmp_path, capfd):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Lambda(lambda x: x / 255.0)(image)
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    keras.Model(image, x).save(tmp_path / "code.keras")
    line = complaint(capfd, "classify", tmp_path / "code.keras", tmp_path)
    assert "holds Python code in a Lambda layer" in line


def test_a_range_may_begin_with_a_minus(saved, tmp_path, capfd):
    line = complaint(capfd, "classify", saved, tmp_path, "--input-scale", "-1..1")
    assert "scales them itself" in line
