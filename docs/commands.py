"""Writes `commands.md` from the parser: python docs/commands.py"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
PAGE = pathlib.Path(__file__).with_suffix(".md")
HEAD = """# Commands

`keras-vit COMMAND --help` says the same. Every command takes `--json FILE`. A mistake
gets one line and exit status 2, and leaves nothing half-written; status 3 says that no
model keeps to the budget, 4 that another worker is gone, 130 an interruption. `--dataset`
is `digits`, a folder of [your own images](guides/data.md), or a name that
[TensorFlow Datasets](https://www.tensorflow.org/datasets/catalog/overview) knows.

Made by `python docs/commands.py` from the parser.
"""


def page() -> str:
    """All commands with all that they take, in Markdown."""
    from keras_vit_cli.main import _parser

    commands = _parser()._subparsers._group_actions[0]
    said = {it.dest: it.help for it in commands._choices_actions}
    parts = [HEAD]
    for name, parser in commands.choices.items():
        rows = "\n".join(
            f"| {spelling(it)} | {meaning(it, parser)} |"
            for it in parser._actions
            if it.dest not in ("help", "json")
        )
        parts.append(
            f"## keras-vit {name}\n\n{sentence(said[name])}\n\n| takes | |\n|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def spelling(action: argparse.Action) -> str:
    """How it is written on the command line."""
    value = action.metavar or action.dest.upper()
    if action.choices:
        value = "|".join(map(str, action.choices))
    if not action.option_strings:
        more = "..." if action.nargs in ("+", "*") else ""
        return f"`{value}{more}`"
    names = ", ".join(action.option_strings)
    takes = "" if action.nargs == 0 else f" {value}"
    return f"`{names}{takes}`".replace("|", "` or `")  # a bar would end the cell


def meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """What it is for."""
    text = parser._get_formatter()._expand_help(action)
    text += " (needed)" if action.option_strings and action.required else ""
    return text.replace("|", "\\|").replace("<", "&lt;")


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "export")]
    PAGE.write_text(page())
