"""`docs/math.md`: its links lead to the lines they quote, its examples hold."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "math.md"
TEXT = PAGE.read_text(encoding="utf-8")
QUOTES = re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", TEXT)
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize(("line", "path"), QUOTES)
def test_a_formula_is_the_line_that_it_links_to(line, path):
    lines = [it.strip() for it in (PAGE.parent / path).read_text().splitlines()]
    assert lines.count(line) >= 1, f"{path} has no line {line!r}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_holds(example):
    assert "assert" in example
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102 - our own page


def test_every_section_has_a_line_of_code():
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert len(sections) >= 10
    for section in sections:
        assert re.search(r"\[`[^`]+`\]\(\.\./", section), section.splitlines()[0]


def test_links_to_other_pages_resolve():
    for path in re.findall(r"\]\((\.\./[^)]+)\)", TEXT):
        assert (PAGE.parent / path).exists(), path
