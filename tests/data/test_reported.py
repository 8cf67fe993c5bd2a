"""Which images figures are of, and what is said of it."""

import json
import pathlib
import shutil

import pytest
from commands import complaint
from keras_vit_cli.main import main

from keras_vit.data import find_source
from keras_vit.data.reported import choose_part
from keras_vit.data.trained_on import make_record
from tests.conftest import write_images


def chosen(folder, records, whole=True, model="elsewhere/m.keras", split=None):
    source = find_source(str(folder), few="test")
    return choose_part(source, split, pathlib.Path(model), records, whole=whole)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of a training, and what the model's file says of it."""
    folder = write_images(tmp_path_factory.mktemp("own") / "own", 40)
    return folder, [make_record(find_source(str(folder)))]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("other") / "other", 20, seed=1)


def test_the_models_own_folder_gives_its_test_part_wherever_it_lies(own, tmp_path):
    folder, records = own
    moved = shutil.copytree(folder, tmp_path / "moved")
    for place in (folder, moved):
        found = chosen(place, records)
        assert found.part == "test" and len(found.words) == 1
        assert "of 80 images are reported on: the test part" in found.words[0]


def test_a_folder_that_training_never_saw_is_whole(own, other):
    found = chosen(other, own[1])
    assert found.part == "all"
    assert found.words == (
        "All 40 images are reported on: as the model was not trained on them.",
    )
    # Files made from it are chosen and calibrated on the rest of it.
    assert chosen(other, own[1], whole=False).part == "test"


def test_a_data_set_of_another_kind_makes_every_folder_another(other):
    assert chosen(other, [{"dataset": "digits", "images": 1417}]).part == "all"


def test_a_folder_with_some_of_the_training_images_is_whole_and_says_so(
    own, other, tmp_path
):
    mixed = shutil.copytree(other, tmp_path / "mixed")
    for index in range(10):
        shutil.copy(own[0] / f"a/{index}.png", mixed / f"a/more-{index}.png")
    found = chosen(mixed, own[1])
    assert found.part == "all" and "trained on a part of them" in found.words[0]
    assert (
        "sampled training images are among these: the figure is too good."
        in (found.words[1])
    )


def test_renamed_images_are_known_again(own, tmp_path):
    """Another name is another place, so test images would be those of training."""
    folder = shutil.copytree(own[0], tmp_path / "renamed")
    for path in folder.rglob("*.png"):
        path.rename(path.with_name(f"new-{path.name}"))
    found = chosen(folder, own[1])
    assert found.part == "test" and "the figure is too good" in found.words[1]


def test_a_split_that_is_asked_for_is_given_and_what_was_trained_on_is_said(own):
    train = chosen(own[0], own[1], split="train")
    assert train.part == "train" and "as --split train says" in train.words[0]
    assert "the figure is too good" in train.words[1]
    assert len(chosen(own[0], own[1], split="test").words) == 1


def test_a_folder_that_has_test_images_gives_those(own, other, tmp_path):
    for name in ("train", "test"):
        shutil.copytree(other, tmp_path / name)
    found = chosen(tmp_path, own[1])
    assert found.part == "test" and "40 of 80 images" in found.words[0]


def test_a_few_test_images_are_enough(own, tmp_path):
    folder = write_images(tmp_path / "few", 1, seed=2)
    assert chosen(folder, own[1]).words[0].startswith("All 2 images are reported on")


def test_a_model_that_does_not_say_gets_the_test_part_unless_its_run_tells(
    own, other, tmp_path
):
    """Files of earlier versions and other makes."""
    found = chosen(other, [])
    assert found.part == "test" and "--split all is all" in found.words[0]
    (tmp_path / "run.json").write_text(json.dumps({"dataset": str(own[0])}))
    run = {"model": tmp_path / "model.keras"}
    assert chosen(other, [], **run).part == "all"
    copied = shutil.copytree(own[0], tmp_path / "copied")
    assert chosen(own[0], [], **run).part == chosen(copied, [], **run).part == "test"
    # It may have been put there.
    assert chosen(other, [], model=tmp_path / "another.keras").part == "test"
    for text in ("{", "[]", '{"dataset": "digits"}', '{"dataset": "/gone"}'):
        (tmp_path / "run.json").write_text(text)
        assert chosen(other, [], **run).part == "test"


def test_commands_take_a_split_and_say_which(saved, tmp_path, capfd):
    figures = tmp_path / "figures.json"
    command = ["evaluate", str(saved), "--dataset", "digits", "--json", str(figures)]
    for split, count in (("validation", 185), ("test", 380)):
        assert main([*command, "--split", split]) == 0
        report = json.loads(figures.read_text())
        assert (report["images"], report["split"]) == (count, split)
        shown = capfd.readouterr().out
        assert f"as --split {split} says" in shown
    assert "380 of 1,797 images" in shown and "Top-1 on 380 test images: " in shown
    line = complaint(capfd, *command, "--dataset", tmp_path / "gone")
    assert "no folder" in line


def test_an_export_reports_on_the_split(saved, tmp_path, capfd):
    out = tmp_path / "m.tflite"
    command = ["export", saved, "--dataset", "digits", "--output", out]
    assert main([*map(str, command), "--split", "all", "--recipe", "float16"]) == 0
    report = json.loads(out.with_name("m.tflite.json").read_text())
    assert report["splits"]["report"] == {"split": "all", "images": 1797}
    assert report["images"] == 1797
