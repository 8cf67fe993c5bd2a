"""What commands say of files that they do not read, and how they then end."""

import pathlib
import unicodedata

import pytest
from commands import complaint
from keras_vit_cli.main import main
from PIL import Image

DIGITS = pathlib.Path(__file__).parents[2] / "models/digits.tflite"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def folder(tmp_path):
    """An image of a format that classify once passed over, and what is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.jfif", "JPEG")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_what_is_no_image_is_counted_and_fatal_to_nothing(folder, capfd):
    assert main(["classify", str(DIGITS), str(folder)]) == 0
    shown = capfd.readouterr()
    assert f"{folder}/a.jfif: " in shown.out
    assert shown.err == f"1 left out, no image: {folder}/notes.txt\n"


@pytest.mark.parametrize("name", ["b.heic", "b.svg", "b.dng"])
def test_an_image_that_no_one_reads_is_no_silent_success(name, folder, capfd):
    (folder / name).write_bytes(HEIC if name == "b.heic" else b"II*\0")
    assert main(["classify", str(DIGITS), str(folder)]) == 2
    assert f"1 left out, {'HEIC' if name == 'b.heic' else ''}" in capfd.readouterr().err


def test_a_csv_says_what_has_no_row(folder, tmp_path, capfd):
    (folder / "gone.png").symlink_to("nowhere")
    output = tmp_path / "out.csv"
    assert main(["classify", str(DIGITS), str(folder), "--output", str(output)]) == 0
    shown = capfd.readouterr().out
    assert "1 left out, no image: " in shown
    assert f"1 left out, link to nothing: {folder}/gone.png" in shown
    assert output.read_text().count("\n") == 2


def test_a_folder_of_nothing_readable_says_what_is_in_it(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("no image")
    line = complaint(capfd, "classify", DIGITS, tmp_path)
    assert "There is no image in folder" in line and "1 left out, no image" in line


def test_features_too_take_every_format_and_count_the_rest(folder, tmp_path, capfd):
    model = str(DIGITS.with_suffix(".keras"))
    command = ["features", model, str(folder), "--kind", "mean"]
    assert main([*command, "--output", str(tmp_path / "a.npz")]) == 0
    (folder / "b.svg").write_text("<svg/>")
    assert main([*command, "--output", str(tmp_path / "b.npz")]) == 2
    assert "1 left out, of a format that Pillow does not read" in capfd.readouterr().err


def test_a_model_knows_its_classes_in_another_spelling(tmp_path, tiny):
    from keras_vit import build_vit
    from keras_vit.files import save_model

    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    config = tiny(num_classes=2, class_names=(names[0], "tea"))
    save_model(build_vit(config), tmp_path / "model.keras")
    for name in (names[1], "tea"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            path = tmp_path / "data" / name / f"{index}.png"
            Image.new("RGB", (12, 8), (index, 0, 0)).save(path)
    arguments = ["--dataset", str(tmp_path / "data")]
    assert main(["evaluate", str(tmp_path / "model.keras"), *arguments]) == 0
