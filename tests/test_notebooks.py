"""Lessons run, are the solutions without answers, and say no number they don't show."""

import ast
import importlib
import pathlib
import re
import sys

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build

SOLUTIONS = sorted(build.SOLUTIONS.glob("*.ipynb"))
NAMES = [path.stem for path in SOLUTIONS]


@pytest.fixture(params=SOLUTIONS, ids=NAMES)
def solution(request):
    return nbformat.read(request.param, as_version=4)


def read_lesson(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.fixture(params=NAMES)
def lesson(request):
    return read_lesson(request.param)


def tags(cell):
    return cell.metadata.get("tags", [])


def test_a_solution_runs_and_its_answers_are_right(solution):
    build.execute(solution, "toy")
    checks = [cell for cell in solution.cells if "check" in tags(cell)]
    assert len(checks) >= 2
    for cell in checks:
        assert any("Right" in it.get("text", "") for it in cell.outputs)
    for cell in solution.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text


@pytest.mark.parametrize(
    "name",
    # The others train: without their answers they take as long as with them.
    [*NAMES[:2], *(pytest.param(it, marks=pytest.mark.long) for it in NAMES[2:])],
)
def test_a_lesson_runs_and_asks_for_the_answers(name):
    lesson = read_lesson(name)
    build.execute(lesson, "toy")
    for cell in lesson.cells:
        raised = any(it.output_type == "error" for it in cell.get("outputs", []))
        assert raised == ("raises-exception" in tags(cell)), cell.source


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_a_lesson_is_its_solution_without_the_answers(path):
    expected = build.lesson_of(nbformat.read(path, as_version=4))
    written = read_lesson(path.stem)
    assert written == expected
    assert "# solution" not in str(written)


def test_every_lesson_has_a_solution():
    assert NAMES
    assert NAMES == sorted(it.stem for it in (ROOT / "notebooks").glob("*.ipynb"))


def test_a_lesson_imports_what_is_public(lesson):
    code = "".join(it.source + "\n" for it in lesson.cells if it.cell_type == "code")
    code = re.sub(r"^\s*[!%].*", "", code, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_vit"):
            public = importlib.import_module(node.module).__all__
            names = {alias.name for alias in node.names} - {"explain", "pictures"}
            assert names <= set(public), (node.module, names)


def prose(text):
    """Markdown without headings, formulas, code and what cites."""
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    place = r"(, (equation|figure|section|table)s? \S+( and \S+)?)?"
    text = re.sub(rf"\[[^]]*\]\([^)]*\){place}", "", text)
    return re.sub(r"^\d+\. |\*\*\d+\.\*\*", "", text, flags=re.MULTILINE)


def test_no_prose_has_a_number_that_no_output_above_shows(solution):
    shown = ""
    for cell in solution.cells:
        if cell.cell_type == "code":
            shown += "".join(it.get("text", "") for it in cell.outputs)
            continue
        for number in re.findall(r"\d+(?:[.,]\d+)*", prose(cell.source)):
            pattern = rf"(?<![\d.]){re.escape(number)}(?![\d])"
            assert re.search(pattern, shown), f"{number}: {cell.source}"


def test_a_number_that_nothing_shows_would_be_found():
    assert re.findall(
        r"\d+", prose("# 1\n[a 2](b3), figure 4 $5$ `6` and 7\n8. x")
    ) == ["7"]


def test_saved_outputs_are_whole_and_without_warnings(solution):
    for cell in solution.cells:
        if cell.cell_type != "code":
            continue
        assert cell.execution_count, f"was not run: {cell.source}"
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert "WARNING" not in output.get("text", "")


def test_badges_and_install_cells_hold_the_address_of_the_repository(lesson, request):
    address = build.address()
    bare = address.removeprefix("https://github.com/")
    first, second = lesson.cells[0].source, lesson.cells[1].source
    name = request.node.callspec.params["lesson"]
    colab = f"https://colab.research.google.com/github/{bare}"
    assert f"{colab}/blob/main/notebooks/{name}.ipynb" in first
    assert f"git+{address}\n" in second
    assert "install" in tags(lesson.cells[1])


def test_pictures_say_what_to_see(solution):
    pictures, drawn_by = 0, {}
    for cell in solution.cells:
        if cell.cell_type != "code":
            continue
        helpers = [it for name, it in drawn_by.items() if f"{name}(" in cell.source]
        code = "".join([cell.source, *helpers])
        drawn_by |= dict.fromkeys(
            re.findall(r"^def (\w+)", cell.source, re.MULTILINE), code
        )
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                pictures += 1
                diagram = "draw_model(" in code
                assert diagram or "xlabel" in code, "axes have names"
                assert "figure.text(" in code, "a caption says what to see"
    assert pictures
