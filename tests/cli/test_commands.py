"""What the commands do, from photographs to a checked file."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import complaint, run
from keras_vit_cli.main import main
from keras_vit_cli.train import _what_is_kept
from keras_vit_device.classifier import Classifier
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One real run: trained on real digits, exported and checked, as a user does it."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    result = run("demo", "--output", folder, "--epochs", 30)
    assert result.returncode == 0, result.stderr
    return folder, result


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
        "logs",
        "run.json",
        "report.json",
        "training_images.png",
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


@pytest.mark.parametrize("command", ["classify", "inspect"])
def test_what_a_device_runs_loads_no_tensorflow(command, tmp_path):
    model, image = ROOT / "models/digits.tflite", ROOT / "models/0-shows-5.png"
    arguments = [command, model, *([image] if command == "classify" else [])]
    arguments = [*map(str, arguments), "--json", str(tmp_path / "answer.json")]
    script = (
        "import sys\n"
        "from keras_vit_cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert json.loads((tmp_path / "answer.json").read_text())


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


def test_benchmark_measures_every_recipe_side_by_side(saved, tmp_path, capfd):
    from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    arguments = ["--dataset", "digits", "--json", str(figures), "--html", str(page)]
    assert main(["benchmark", str(saved), *arguments]) == 0
    reports = json.loads(figures.read_text())
    assert list(reports) == ["keras", *QUANTIZATION_RECIPES]
    shown = capfd.readouterr().out
    for name in QUANTIZATION_RECIPES:
        assert f"| {name} |" in shown
        assert name in page.read_text()


def test_a_model_of_grey_images_is_exported_for_colour(tmp_path):
    model, out = str(ROOT / "models/digits.keras"), tmp_path / "m.tflite"
    arguments = ["--dataset", "digits", "--recipe", "float32", "--rgb"]
    assert main(["export", model, "--output", str(out), *arguments]) == 0
    report = json.loads(out.with_name("m.tflite.json").read_text())
    assert report["agreement"] == 1.0
    assert report["top1"] == report["keras_top1"]
    assert Classifier(out).preprocessing["channels"] == 3
    image = str(ROOT / "models/0-shows-5.png")
    answers = []
    for file in (model, str(out)):
        assert main(["classify", file, image, "--json", str(tmp_path / "j")]) == 0
        answers.append(json.loads((tmp_path / "j").read_text())[image])
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)


def test_export_without_a_data_set_says_that_accuracy_was_not_measured(
    saved, tmp_path, capfd
):
    out = tmp_path / "out/m.tflite"
    assert main(["export", str(saved), "--output", str(out)]) == 0
    assert "Top-1 was not measured" in capfd.readouterr().out
    assert json.loads(out.with_name(f"{out.name}.json").read_text())["top1"] is None


def test_an_interrupted_training_keeps_the_best_model(tmp_path):
    import signal

    folder = tmp_path / "run"
    # A shell starts what it runs in the background deaf to interruptions.
    program = (
        "import signal, sys; from keras_vit_cli.main import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", "--dataset", "digits"]
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
    kept = {"model.keras", "history.csv", "curves.png", "run.json"}
    kept |= {"logs", "training_images.png"}
    assert names - {"checkpoints"} == kept
    assert main(["evaluate", str(folder / "model.keras"), "--dataset", "digits"]) == 0


def test_a_folder_of_images_is_trained_on_and_broken_files_are_named(
    photos, tmp_path, capfd, without_xla
):
    arguments = ["train", "--dataset", str(photos), "--output", str(tmp_path / "run")]
    size = ["--image-size", "8x16", "--epochs", "8", "--batch-size", "8"]
    assert main([*arguments, *size]) == 0
    out = capfd.readouterr().out
    [line] = [line for line in out.splitlines() if "left out" in line]
    assert line.startswith("1 left out, no image: ") and "dark/notes.txt" in line
    report = json.loads((tmp_path / "run/run.json").read_text())
    assert report["config"]["image_size"] == [8, 16]
    assert report["config"]["class_names"] == ["dark", "light"]
    assert report["top1"] > 0.9
    check_that_figures_are_of_unseen_images(photos, tmp_path, report["top1"])


def check_that_figures_are_of_unseen_images(photos, folder, top1):
    """Of the run's own folder its test part, of another all, by both kinds of file."""
    other, figures = folder / "other", folder / "figures.json"
    for path in photos.glob("*/*.png"):  # other content
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).rotate(180).save(other / path.parent.name / path.name)
    model, file = folder / "run/model.keras", folder / "m.tflite"
    export = ["export", model, "--dataset", photos, "--output", file]
    assert main([*map(str, export), "--recipe", "float32"]) == 0
    for name in (model, file):
        for images, count in ((photos, None), (other, 40)):
            command = ["evaluate", name, "--dataset", images, "--json", figures]
            assert main([*map(str, command)]) == 0
            found = json.loads(figures.read_text())
            if count is None:
                assert found["top1"] == top1 and found["split"] == "test"
            else:
                assert found["images"] == count and found["split"] == "all"


def test_what_stops_a_training_is_one_line(photos, tmp_path, capfd, monkeypatch):
    import keras
    import tensorflow as tf

    arguments = ["train", "--dataset", photos, "--output", tmp_path / "run"]
    arguments += ["--image-size", 8, "--epochs", 1, "--batch-size", 8]
    fit, ended = keras.Model.fit, []

    def without_images(*given, **options):
        for path in photos.glob("*/*.png"):
            path.write_bytes(b"")
        return fit(*given, **options)

    def without_memory(*_, **__):
        os.write(2, b"of C++")
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr("keras_vit.training.rehearsal.available_memory", lambda: 10**8)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(keras.Model, "fit", without_memory)
    assert main([*map(str, arguments)]) is None and ended == [2]
    shown = capfd.readouterr()
    assert "This may be killed: a batch of 8 needs about" in shown.out
    assert shown.err.startswith("keras-vit: A step of 8 images needs more memory")
    assert len(shown.err.splitlines()) == 1
    monkeypatch.setattr(
        "keras_vit.data.pipeline.CACHE_BYTES", 0
    )  # read while it trains
    monkeypatch.setattr(keras.Model, "fit", without_images)
    assert "is unreadable or no image" in complaint(capfd, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_command_that_nobody_listens_to_has_not_ended_well():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "keras_vit_cli.main", "inspect"]
    command.append(str(ROOT / "models/digits.tflite"))
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert ended.returncode == 141 and ended.stderr == b""


def test_help_is_quick():
    def seconds():
        start = time.perf_counter()
        assert run("--help").returncode == 0
        return time.perf_counter() - start

    # Half a second on an idle machine; the test below holds what makes it so.
    assert min(seconds() for _ in range(5)) < 1.0


def test_an_interrupted_training_is_resumed_and_other_options_are_refused(
    tmp_path, capfd, monkeypatch, without_xla
):
    from keras_vit.training.callbacks import Progress

    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    shape = ["--variant", "nano/4", "--drop-path", "0.1"]
    arguments = ["train", "--dataset", "digits", *shape, "--epochs", "2"]
    arguments += ["--checkpoint-steps", "12"]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_epoch_begin", interrupt)
        assert main([*arguments, "--output", str(folder)]) == 130
    assert f"--resume {folder} goes on" in capfd.readouterr().err
    (folder / "model.keras").rename(tmp_path / "best")  # as in the first epoch
    assert _what_is_kept(folder) == f"--resume {folder} goes on."
    (tmp_path / "best").rename(folder / "model.keras")
    assert "nothing was kept" in _what_is_kept(tmp_path)
    line = complaint(capfd, "train", "--resume", folder, "--epochs", 3, "--seed", 4)
    assert "recipe.epochs was 2, is 3" in line and "seed was 0, is 4" in line
    line = complaint(capfd, "train", "--resume", folder, "--recipe", "smal")
    assert "--recipe must be one of" in line
    other = ("--variant", "nano/4", "--drop-path", 0.2)
    line = complaint(capfd, "train", "--resume", folder, *other)
    assert line.endswith("config.drop_path was 0.1, is 0.2")
    taught = ("--teacher", ROOT / "models/digits.keras")
    line = complaint(capfd, "train", "--resume", folder, *taught)
    assert "teacher was None, is " in line
    rehearsed = ("--dry-run", "--set", "trainable=hed")  # with the run's data set
    line = complaint(capfd, "train", "--resume", folder, *rehearsed)
    assert "must name layers" in line
    settings = (folder / "run.json").read_text()
    for name in ("epochs", "width"):
        (folder / "run.json").write_text(settings.replace(f'"{name}"', f'"{name}s"'))
        line = complaint(capfd, "train", "--resume", folder)
        assert "begun by another version of keras_vit" in line and f"{name}s" in line
    (folder / "run.json").write_text(settings)
    figures = tmp_path / "figures.json"
    again = ["--image-size", "8", "--json", str(figures)]
    assert main(["train", "--resume", str(folder), *again]) == 0
    out = capfd.readouterr().out
    assert "Going on after step 12." in out
    assert "images a second" in out and "waiting" in out
    assert json.loads(figures.read_text())["images_per_second"] > 0
    assert json.loads((folder / "run.json").read_text())["checkpoint_steps"] == 12
    assert "finished" in complaint(capfd, "train", "--resume", folder)


def test_a_student_learns_from_a_file_in_less_precision_and_is_fine_tuned(
    photos, tmp_path, capfd, without_xla
):
    base = ["train", "--dataset", str(photos), "--epochs", "1", "--batch-size", "8"]
    first = [
        "--image-size",
        "8",
        "--accumulation",
        "2",
        "--output",
        str(tmp_path / "a"),
    ]
    assert main([*base, *first]) == 0
    teacher = ["--teacher", str(tmp_path / "a/model.keras"), "--distillation", "soft"]
    second = [*teacher, "--image-size", "8", "--precision", "mixed_bfloat16"]
    assert main([*base, *second, "--output", str(tmp_path / "b")]) == 0
    assert "The teacher's top-1 on " in capfd.readouterr().out
    student = str(tmp_path / "b/model.keras")
    third = ["--from", student, "--recipe", "linear_probe", "--continue"]
    for _ in range(2):
        assert main([*base, *third, "--output", str(tmp_path / "c")]) == 0
    assert "is finished" in capfd.readouterr().out
    for name, precision in (("b", "mixed_bfloat16"), ("c", "float32")):
        settings = json.loads((tmp_path / name / "run.json").read_text())
        assert settings["precision"] == precision
        assert settings["config"]["distillation_token"]
    del settings["top1"]  # as if it was not finished
    (tmp_path / "c/run.json").write_text(json.dumps(settings))
    resumed = ("train", "--resume", tmp_path / "c", "--variant", "nano/4")
    assert "--from brings its own size" in complaint(capfd, *resumed)


def test_a_dry_run_says_what_a_training_would_take_and_writes_nothing(
    tmp_path, capfd, monkeypatch
):
    figures = tmp_path / "figures.json"
    options = ["--dataset", "digits", "--dry-run", "--recipe", "deit", "--epochs", "3"]
    options += ["--batch-size", "32"]
    options += ["--set", "mixup=0.25", "--set", "trainable=head,block_03"]
    assert main(["train", *options, "--json", str(figures)]) == 0
    shown = capfd.readouterr().out
    assert "4 blocks of width 64" in shown and "  mixup: 0.25" in shown
    assert "  trainable: ('head', 'block_03')" in shown and "  cutmix: 1.0" in shown
    # DeiT's 5e-4 is of 512 images; 32 are a sixteenth.
    assert "  batch_size: 32" in shown and "  learning_rate: 3.125e-05" in shown
    assert "images a second" in shown and "All 3 epochs: about" in shown
    found = json.loads(figures.read_text())
    assert found["seconds"] > found["compile_seconds"] > found["step_seconds"] > 0
    # The estimate is of the right size, if not of this process, which ran other tests.
    assert 8e8 < found["estimated_memory_bytes"] < 2e9
    with monkeypatch.context() as small:
        small.setattr("keras_vit.training.rehearsal.available_memory", lambda: 10**8)
        line = complaint(capfd, "train", *options)
    assert "a batch of 32 needs about" in line and "0.1 GB are free" in line
    line = complaint(capfd, "train", *options, "--set", "trainable=head,hed")
    assert "must name layers" in line and line.endswith("'hed'")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_options_of_training_that_do_not_fit_are_one_line(tmp_path, capfd, monkeypatch):
    base = ["train", "--dataset", "digits", "--output", tmp_path / "run"]

    def line(*options):
        return complaint(capfd, *base, *options)

    assert "needs --from" in line("--recipe", "finetune")
    assert "must be one of mixup, " in line("--set", "mixupp=0.2")
    assert "mixup must be of type float" in line("--set", "mixup=much")
    assert "is --batch-size" in line("--set", "batch_size=256")
    assert "cutmix must be in [0, 1]" in line("--set", "cutmix=2")
    assert "flip must be one of true, false" in line("--set", "flip=1")
    assert "mixup must not be negative" in line("--set", "mixup=-1")
    assert "don't go with it" in line("--from", "m.keras", "--variant", "nano/2")
    assert "don't go with it" in line("--from", "m.keras", "--drop-path", 0.0)
    assert "in [0, 1)" in line("--drop-path", 1.0)
    assert "There is no file" in line("--from", tmp_path / "m.keras")
    assert "There is no file" in line("--teacher", tmp_path / "m.keras")
    assert "is a folder" in line("--from", tmp_path)
    assert "mixed_bfloat16" in line("--precision", "bfloat")
    assert "hard, soft" in line("--distillation", "warm")
    assert "mirrored" in line("--strategy", "many")
    assert "needs TF_CONFIG" in line("--strategy", "multiworker")
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert "TF_CONFIG must be like" in line()
    assert not (tmp_path / "run").exists()


def test_help_names_every_training_recipe():
    from keras_vit.training.recipes import TRAINING_RECIPES

    text = run("train", "--help").stdout
    assert all(name in text for name in TRAINING_RECIPES)
