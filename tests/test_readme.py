"""What the README and the pages show works, and what works is in them."""

import dataclasses
import pathlib
import re

import pytest
from keras_vit_export.any_classifier import open_classifier
from PIL import Image

import keras_vit

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
PAGES = [it for it in PAGES if "node_modules" not in it.parts]


def test_it_is_a_door_and_no_house():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1200


def test_the_example_runs_as_it_stands():
    """All but the number of epochs, so that it takes seconds."""
    example = re.search(
        r"```python\n(import keras\nimport keras_vit\n.*?)```", README, re.DOTALL
    )[1]
    assert "epochs=80" in example
    names = {}
    exec(example.replace("epochs=80", "epochs=2"), names)  # noqa: S102
    assert names["report"].images == names["data"].counts["test"]
    assert names["classifier"].class_names == tuple("0123456789")
    own = re.search(r"```python\n(loss = .*?)```", README, re.DOTALL)[1]
    exec(own.replace("epochs=10", "epochs=1"), names)  # noqa: S102
    assert names["model"].history.history["val_accuracy"]


def test_the_lines_for_photos_run_as_they_stand(tmp_path, monkeypatch, rng):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (20, 30, 3)).astype("uint8")
            path = tmp_path / "photos" / name / f"{index}.png"
            Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(source = .*?)```", README, re.DOTALL)[1]
    short = "\nplan = dataclasses.replace(plan, recipe=small)\ndata = "
    small = keras_vit.TrainingRecipe(epochs=1)
    names = {"keras_vit": keras_vit, "dataclasses": dataclasses, "small": small}
    exec(lines.replace("\ndata = ", short), names)  # noqa: S102
    assert names["run"].evaluation.class_names == ("cat", "dog")


def test_its_table_is_that_of_the_page_on_speed():
    page = (ROOT / "docs/results/speed.md").read_text()
    rows = re.findall(r"^\| (?:\*\*`|KerasHub,|ONNX|PyTorch).*$", README, re.MULTILINE)
    assert len(rows) == 6
    for row in rows:
        assert f"\n{row[:-1]}" in page, row


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.name)
def test_every_file_that_a_page_links_to_is_there(page):
    for path in re.findall(r"\]\((?!http)([\w./-]+)[)#]", page.read_text()):
        made = path.endswith("lessons/index.md")  # of the site
        assert made or (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.name)
def test_every_file_that_a_page_names_is_there(page):
    files = [
        str(it)
        for top in ("keras_vit", "export", "tests", "benchmarks", "docs", "notebooks")
        for it in (ROOT / top).rglob("*.py")
    ]
    text = page.read_text()
    others = {"train.py", "utils.py"}  # timm's; what there is none of
    for name in set(re.findall(r"`([\w./]+\.py)`", text)) - others:
        assert any(it.endswith(f"/{name}") for it in files), name
    for path in re.findall(
        r"(?:python |`)((?:tests|benchmarks|models)/[\w./-]+)", text
    ):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["digits.keras", "digits.tflite"])
def test_the_model_in_the_box_reads_the_digits_beside_it(name):
    classifier = open_classifier(ROOT / "models" / name)
    pictures = sorted((ROOT / "models").glob("*-shows-*.png"))
    assert len(pictures) == 5
    for path in pictures:
        probabilities = classifier.probabilities([classifier.read(path)])[0]
        best = classifier.class_names[probabilities.argmax()]
        assert best == path.stem[-1], path.name
