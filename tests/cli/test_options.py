"""No option is parsed and then forgotten."""

import argparse
import ast
import pathlib

import pytest
from keras_vit_cli import plans
from keras_vit_cli.main import MODULES, _parser

FOLDER = pathlib.Path(plans.__file__).parent
# `main` reads these of all commands.
OF_MAIN = {"help", "command", "modules"}


def commands():
    (action,) = (
        it for it in _parser()._actions if isinstance(it, argparse._SubParsersAction)
    )
    return action.choices


def names_read(file):
    """Attributes of `options` that a command's file reads, or those that it imports."""
    tree = ast.parse((FOLDER / f"{file}.py").read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and getattr(node.value, "id", 0) == "options"
        ):
            yield node.attr
        if isinstance(node, ast.ImportFrom) and node.module.startswith(
            "keras_vit_cli."
        ):
            name = node.module.removeprefix("keras_vit_cli.")
            if (FOLDER / f"{name}.py").exists():
                yield from names_read(name)


@pytest.mark.parametrize("command", commands())
def test_every_option_is_read(command):
    parsed = {action.dest for action in commands()[command]._actions}
    file = MODULES.get(command, command.replace("-", "_"))
    known = {*names_read(file), *OF_MAIN}
    if command == "train":
        known |= plans._ARGUMENTS  # read by their names
    assert not parsed - known


def test_an_option_named_as_an_argument_of_a_plan_is_one(monkeypatch):
    options = _parser().parse_args(["train", "--dataset", "digits", "--epochs", "3"])
    options.mixup = 0.5
    _, plan = plans.new_plan(options)
    assert (plan.recipe.epochs, plan.recipe.mixup) == (3, 0.5)
