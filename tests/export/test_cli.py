"""The command line: bad input is one clear line, status 2, nothing half-written."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from keras_vit_export.cli import main
from PIL import Image

from keras_vit import ViTConfig, build_vit
from keras_vit.files import save_model


def run(*arguments):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_vit_export.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One real run: trained on real digits, exported and checked, as a user does it."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    result = run("demo", "--output", folder, "--epochs", 30)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def digit(tmp_path):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    image = Image.fromarray((images[0].reshape(8, 8) * 15.9).astype("uint8"))
    image.save(tmp_path / "digit.png")
    return tmp_path / "digit.png", str(labels[0])


@pytest.fixture
def model(tmp_path):
    """An untrained model of the digits, for what needs no right answer."""
    names = tuple("0123456789")
    config = ViTConfig.from_variant(
        "nano/4", image_size=8, channels=1, num_classes=10, class_names=names, depth=1
    )
    save_model(build_vit(config), tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_the_demo_reaches_95_percent_in_every_format(demo):
    folder, result = demo
    figures = json.loads((folder / "report.json").read_text())
    assert list(figures) == ["keras", "float32", "float16", "dynamic_int8"]
    for name, report in figures.items():
        assert report["top1"] >= 0.95, name
        assert report["agreement"] >= 0.97, name
        assert report["latency_ms"] > 0
    assert figures["float32"]["max_difference"] < 1e-5
    assert (
        figures["dynamic_int8"]["size_bytes"] < 0.4 * figures["float32"]["size_bytes"]
    )
    assert "| dynamic_int8 |" in result.stdout


def test_the_demo_leaves_models_and_pictures(demo):
    folder, _ = demo
    assert {path.name for path in folder.iterdir()} == {
        "model.keras",
        "history.csv",
        "run.json",
        "report.json",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "float32.tflite",
        "float16.tflite",
        "dynamic_int8.tflite",
    }
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_users_see_our_lines_only(demo):
    _, result = demo
    assert result.stderr == ""
    assert "Epoch 30/30" in result.stdout


@pytest.mark.parametrize("name", ["model.keras", "dynamic_int8.tflite"])
def test_evaluate_and_classify_take_both_kinds(demo, name, digit, tmp_path, capfd):
    folder, _ = demo
    path, label = digit
    figures = json.loads((folder / "report.json").read_text())
    expected = figures["keras" if name == "model.keras" else "dynamic_int8"]["top1"]
    out, picture = tmp_path / "figures.json", tmp_path / "confusion.png"
    arguments = ["--dataset", "digits", "--json", str(out), "--confusion", str(picture)]
    assert main(["evaluate", str(folder / name), *arguments]) == 0
    measured = json.loads(out.read_text())
    assert measured["top1"] == pytest.approx(expected)
    assert (
        np.sum(measured["confusion"])
        == measured["images"]
        == figures["keras"]["images"]
    )
    assert picture.exists()
    assert main(["classify", str(folder / name), str(path), "--json", str(out)]) == 0
    assert next(iter(json.loads(out.read_text())[str(path)])) == label
    assert f"{path}: {label} " in capfd.readouterr().out


def test_classify_of_a_tflite_loads_no_tensorflow(demo, digit):
    script = (
        "import sys\n"
        "from keras_vit_export.cli import main\n"
        f"main(['classify', {str(demo[0] / 'float32.tflite')!r}, {str(digit[0])!r}])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_export_measures_then_writes(demo, tmp_path, capfd):
    model, out = demo[0] / "model.keras", tmp_path / "m.tflite"
    arguments = ["--output", str(out), "--dataset", "digits", "--max-drop", "2"]
    assert main(["export", str(model), *arguments]) == 0
    report = json.loads(out.with_name(f"{out.name}.json").read_text())
    assert report["recipe"] == "dynamic_int8"
    assert report["size_bytes"] == out.stat().st_size
    assert report["top1"] >= report["keras_top1"] - 0.02
    assert report["splits"]["choice"] == {"split": "validation", "images": 185}
    assert report["splits"]["report"] == {"split": "test", "images": 380}
    assert [trial["protected"] for trial in report["trials"]] == [0]
    page = out.with_name(f"{out.name}.html").read_text()
    assert "m.tflite, from model.keras" in page
    captured = capfd.readouterr()
    assert "| dynamic_int8 |" in captured.out
    assert "Report on 380 test images" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("recipe", ["dynamic_int8", "auto"])
def test_export_writes_nothing_if_too_much_is_lost(recipe, demo, tmp_path, capfd):
    out = tmp_path / "m.tflite"
    arguments = ["--output", str(out), "--dataset", "digits", "--max-drop", "-1.5"]
    arguments += ["--recipe", recipe]
    assert main(["export", str(demo[0] / "model.keras"), *arguments]) == 3
    shown = capfd.readouterr().out
    assert "Not written: nothing keeps to --max-drop -1.5" in shown
    assert "| dynamic_int8 |" in shown
    assert "too much" in shown and "holds" not in shown
    assert not list(tmp_path.iterdir())


def test_a_calibrated_recipe_answers_like_keras_and_takes_bytes(demo, tmp_path, capfd):
    out = tmp_path / "m.tflite"
    arguments = ["--output", str(out), "--dataset", "digits", "--recipe", "full_int8"]
    assert main(["export", str(demo[0] / "model.keras"), *arguments]) == 0
    report = json.loads(out.with_name(f"{out.name}.json").read_text())
    assert report["agreement"] >= 0.97
    assert report["splits"]["calibration"] == {"split": "train", "images": 64}
    assert main(["evaluate", str(out), "--dataset", "digits"]) == 0
    assert f"Top-1 on 380 test images: {report['top1']:.2%}" in capfd.readouterr().out


def test_benchmark_measures_every_recipe_side_by_side(model, tmp_path, capfd):
    from keras_vit_export.recipes import RECIPES

    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    arguments = ["--dataset", "digits", "--json", str(figures), "--html", str(page)]
    assert main(["benchmark", str(model), *arguments]) == 0
    reports = json.loads(figures.read_text())
    assert list(reports) == ["keras", *RECIPES]
    shown = capfd.readouterr().out
    for name in RECIPES:
        assert f"| {name} |" in shown
        assert name in page.read_text()


def test_export_without_a_data_set_says_that_accuracy_was_not_measured(
    model, tmp_path, capfd
):
    out = tmp_path / "out/m.tflite"
    assert main(["export", str(model), "--output", str(out)]) == 0
    assert "Top-1 was not measured" in capfd.readouterr().out
    assert json.loads(out.with_name(f"{out.name}.json").read_text())["top1"] is None


def test_rewrites_can_be_required(tmp_path, capfd):
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    output = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    save_model(keras.Model(inputs, output), tmp_path / "other.keras")
    out = tmp_path / "m.tflite"
    arguments = ["export", str(tmp_path / "other.keras"), "--output", str(out)]
    line = complaint(capfd, *arguments, "--rewrites", "required")
    assert "can't be rewritten" in line and "build_vit" in line
    assert not out.exists()
    assert main(arguments) == 0
    assert "Not rewritten: config_of reads models" in capfd.readouterr().out


def test_an_output_that_can_not_be_written_is_one_line(model, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/m.tflite"
    line = complaint(capfd, "export", model, "--output", out)
    assert "file" in line
    assert [path.name for path in tmp_path.iterdir() if "tflite" in path.name] == []


def test_a_report_that_can_not_be_written_leaves_nothing(model, tmp_path, capfd):
    out = tmp_path / "m.tflite"
    (tmp_path / "m.tflite.html").mkdir()
    assert "m.tflite.html" in complaint(capfd, "export", model, "--output", out)
    (tmp_path / "m.tflite.html").rmdir()
    line = complaint(capfd, "export", model, "--output", out, "--json", out)
    assert "the same name" in line
    assert not list(tmp_path.glob("m.tflite*"))


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


def complaint(capfd, *arguments):
    """The one line that a wrong command answers with."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("keras-vit: ")
    assert "Traceback" not in captured.err
    return lines[0]


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


@pytest.fixture
def photos(tmp_path):
    """Two classes that are easy to tell, and one file that is no image."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 155)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(low, low + 100, (20, 16, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{index}.png")
    (tmp_path / "photos/dark/notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_a_folder_of_images_is_trained_on_and_broken_files_are_named(
    photos, tmp_path, capfd
):
    arguments = ["train", "--dataset", str(photos), "--output", str(tmp_path / "run")]
    size = ["--image-size", "8x16", "--epochs", "8", "--batch-size", "8"]
    assert main([*arguments, *size]) == 0
    out = capfd.readouterr().out
    assert "1 unreadable files are left out" in out
    assert "dark/notes.txt" in out
    report = json.loads((tmp_path / "run/run.json").read_text())
    assert report["config"]["image_size"] == [8, 16]
    assert report["config"]["class_names"] == ["dark", "light"]
    assert report["top1"] > 0.9


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
    kind, command, model, tmp_path, capfd, digit
):
    path = tmp_path / f"cut.{kind}"
    rest = ["--dataset", "digits"] if command == "evaluate" else [digit[0]]
    assert "There is no file" in complaint(capfd, command, path, *rest)
    path.write_bytes(model.read_bytes()[:5000])
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
    arguments, words, model, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    line = complaint(capfd, "export", model, "--output", "out.tflite", *arguments)
    assert words in line
    assert set(tmp_path.iterdir()) == before


def test_a_model_of_other_classes_is_refused(model, photos, capfd):
    line = complaint(capfd, "evaluate", model, "--dataset", photos)
    assert "differ in their classes" in line
    assert "2 (dark, light)" in line


def test_a_file_of_another_kind_is_refused(tmp_path, capfd, digit):
    (tmp_path / "model.h5").write_bytes(b"x")
    line = complaint(capfd, "classify", tmp_path / "model.h5", digit[0])
    assert ".keras or a .tflite" in line


def test_classify_names_what_it_cannot_read_and_goes_on(model, photos, capfd):
    assert main(["classify", str(model), str(photos / "dark")]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 20, "a folder's images only"
    bad = photos / "dark/notes.txt"
    assert main(["classify", str(model), str(bad), str(photos / "light/0.png")]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith(f"'{bad}' is unreadable or no image")
    assert len(captured.err.splitlines()) == 1
    assert len(captured.out.splitlines()) == 1


def test_images_that_are_not_there_are_named(model, tmp_path, capfd):
    line = complaint(capfd, "classify", model, tmp_path / "none.png")
    assert "none.png" in line


def test_an_interrupted_training_keeps_the_best_model(tmp_path):
    import signal

    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_vit_export.cli", "train", "--dataset", "digits"]
        + ["--epochs", "500", "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "model.keras").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is the best model so far" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.keras", "history.csv", "curves.png"}
    assert main(["evaluate", str(folder / "model.keras"), "--dataset", "digits"]) == 0


def test_help_is_quick():
    def seconds():
        start = time.perf_counter()
        assert run("--help").returncode == 0
        return time.perf_counter() - start

    # Half a second on an idle machine; the test below holds what makes it so.
    assert min(seconds() for _ in range(5)) < 1.0
