"""What the README shows works, and what works is in it."""

import pathlib
import re

import pytest
from keras_vit_cli.main import _parser
from keras_vit_export.any_classifier import open_classifier

from keras_vit import layers

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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


def test_every_command_and_flag_is_listed():
    actions = _parser()._subparsers._group_actions[0].choices
    for command, parser in actions.items():
        assert f"`keras-vit {command}" in README
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in README or flag == "-h", f"{command} {flag}"


def test_every_layer_is_listed():
    for name in layers.__all__:
        if isinstance(getattr(layers, name), type):
            assert f"`{name}`" in README


def test_every_file_that_it_names_is_there():
    for path in re.findall(r"\]\((?!http)([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:tests|benchmarks|models)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_every_module_that_a_page_names_is_there():
    files = [
        str(it)
        for top in ("keras_vit", "export", "tests", "benchmarks")
        for it in (ROOT / top).rglob("*.py")
    ]
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
    ]
    others = {"train.py", "utils.py"}  # timm's; what there is none of
    for page in pages:
        for name in set(re.findall(r"`([\w./]+\.py)`", page.read_text())) - others:
            assert any(it.endswith(f"/{name}") for it in files), (page.name, name)


@pytest.mark.parametrize("name", ["digits.keras", "digits.tflite"])
def test_the_model_in_the_box_reads_the_digits_beside_it(name):
    classifier = open_classifier(ROOT / "models" / name)
    pictures = sorted((ROOT / "models").glob("*-shows-*.png"))
    assert len(pictures) == 5
    for path in pictures:
        probabilities = classifier.probabilities([classifier.read(path)])[0]
        best = classifier.class_names[probabilities.argmax()]
        assert best == path.stem[-1], path.name
