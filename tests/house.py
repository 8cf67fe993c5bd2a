"""What the code is like to walk through, in figures: `python tests/house.py [ROOT]`.

Files a folder, lengths of functions, functions that import, public names, functions
that are named by a bare participle, lines.
"""

import ast
import dataclasses
import json
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


def module_of(path: pathlib.Path, root: pathlib.Path) -> str:
    """The name by which a file of the product is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    parts = parts[1:] if parts[0] == "export" else parts
    return ".".join(it for it in parts if it != "__init__")


def sources(root: pathlib.Path) -> Iterator[str]:
    """All code that uses the product: its own, tests, benchmarks, lessons."""
    for folder in (*PACKAGES, "tests", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            if not LEFT_OUT & set(path.parts):
                yield path.read_text()
    for path in (root / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        lines = "".join("".join(it["source"]) + "\n" for it in cells if _is_code(it))
        yield "\n".join(it for it in lines.splitlines() if not it.lstrip()[:1] in "!%")


def _is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code"


def names_used(source: str, modules: set[str]) -> Iterator[tuple[str, str]]:
    """(module, name) of what a file takes from modules, by `from` or by a dot."""
    tree, known = ast.parse(source), {name: name for name in modules}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = full
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            known |= {it.asname: it.name for it in node.names if it.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield known.get(ast.unparse(node.value), ""), node.attr


def used_at_home_alone(root: pathlib.Path) -> list[str]:
    """`module.function` of those without underscore that no other file uses.

    A table of its own module makes a function known by another name.
    """
    modules = {module_of(path, root): path for path in files(root)}
    used = {pair for it in sources(root) for pair in names_used(it, set(modules))}
    found = []
    for module, path in modules.items():
        body = ast.parse(path.read_text()).body
        own = {it.name for it in body if isinstance(it, ast.FunctionDef)}
        tables = [it for it in body if isinstance(it, ast.Assign | ast.AnnAssign)]
        tabled = {getattr(it, "id", "") for row in tables for it in ast.walk(row)}
        found += [
            f"{module}.{name}"
            for name in sorted(own - tabled)
            if not name.startswith("_") and (module, name) not in used
        ]
    return found


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
