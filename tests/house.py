"""What the code is like to walk through, in figures: `python tests/house.py [ROOT]`.

Files a folder, lengths of functions, functions that import, public names, functions
that are named by a bare participle, lines.
"""

import ast
import dataclasses
import pathlib
import statistics
import sys
from collections import Counter
from collections.abc import Iterator

PACKAGES = ("keras_vit", "export")
LEFT_OUT = {"node_modules", "__pycache__"}
# What was done to a thing says neither what it is nor what a function does.
_WORDS = """
added applied asked built by calibrated changed checked chosen closed converted copied
counted cut decoded described done drawn fed filled fitted fitting followed found
given grouped held joined kept known labelled loaded looked made matched measured
merged moved named normalized opened ordered packed paired parsed picked planned put
quantized read_back rebuilt removed renamed replaced resized rewritten rounded run_on
saved scaled seen selected shown shrunk skipped smoothed sorted stacked started
stored taken taught told tried typed used watched written
"""
PARTICIPLES = frozenset(_WORDS.split())


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of a file.

    Attributes:
        file: Its path.
        name: Its name.
        lines: Its length, without docstring and decorators.
        imports: What it imports itself.
    """

    file: pathlib.Path
    name: str
    lines: int
    imports: tuple[str, ...]


def files(root: pathlib.Path) -> list[pathlib.Path]:
    """Python files of the product."""
    found = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    found += root.glob("keras_vit_*.py")
    return sorted(it for it in found if not LEFT_OUT & set(it.parts))


def functions(path: pathlib.Path) -> Iterator[Function]:
    """All functions and methods, those inside others too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, *_ = node.body
            has_text = isinstance(first, ast.Expr) and isinstance(
                getattr(first.value, "value", None), str
            )
            text = first.end_lineno - first.lineno + 1 if has_text else 0
            lines = node.end_lineno - node.lineno + 1 - text
            yield Function(path, node.name, lines, tuple(_imports(node)))


def _imports(function: ast.FunctionDef) -> Iterator[str]:
    for node in _own(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, but not in functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
            yield from _own(child)


def is_participle(name: str) -> bool:
    """Whether a name is a participle or a preposition and no noun."""
    return name.strip("_") in PARTICIPLES


def definitions(path: pathlib.Path) -> list[str]:
    """Names of the functions and classes that a module defines."""
    kinds = ast.FunctionDef | ast.ClassDef
    return [it.name for it in ast.parse(path.read_text()).body if isinstance(it, kinds)]


def measure(root: pathlib.Path) -> dict[str, object]:
    """The figures by name."""
    paths = files(root)
    every = [function for path in paths for function in functions(path)]
    lengths = sorted(it.lines for it in every)
    longest = max(every, key=lambda it: it.lines)
    folders = Counter(str(path.parent.relative_to(root)) for path in paths)
    names = [name for path in paths for name in definitions(path)]
    importing = [it for it in every if it.imports]
    return {
        "files by folder": dict(folders.most_common()),
        "functions": len(every),
        "median lines": statistics.median(lengths),
        "95th percentile": lengths[int(0.95 * len(lengths))],
        "longest": f"{longest.lines}, {longest.name} in {longest.file.name}",
        "above 50 lines": [f"{it.name} {it.lines}" for it in every if it.lines > 50],
        "functions that import": len(importing),
        "definitions without underscore": sum(not it.startswith("_") for it in names),
        "bare participles": sorted({it.name for it in every if is_participle(it.name)}),
        "lines": sum(len(path.read_text().splitlines()) for path in paths),
    }


if __name__ == "__main__":
    here = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent
    for name, figure in measure(pathlib.Path(here)).items():
        print(f"{name}: {figure}")
