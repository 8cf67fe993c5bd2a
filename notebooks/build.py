"""Runs the solutions and makes the lessons from them: the same without the answers.

    python notebooks/build.py                 every notebook, at full size
    python notebooks/build.py 01 05           some of them
    python notebooks/build.py --url URL       the repository at another address, everywhere

In a solution, a line that ends in `# solution` is an answer, and a cell tagged `check`
tells whether answers are right. Lessons lack the one, and the other raises there.
"""

import argparse
import configparser
import copy
import os
import pathlib
import re

import nbformat

HERE = pathlib.Path(__file__).parent
SOLUTIONS = HERE / "solutions"
ANSWER = re.compile(r".*# solution$")
# Every lesson reads it: "toy" makes what takes long as small as it can be.
SIZE = "LESSON_SIZE"


def lesson_of(solution: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A solution without its answers; what checks them raises, and shows nothing."""
    lesson = copy.deepcopy(solution)
    for cell in lesson.cells:
        if cell.cell_type != "code":
            continue
        lines = cell.source.split("\n")
        kept = [line for line in lines if not ANSWER.match(line)]
        tags = cell.metadata.get("tags", [])
        if "check" in tags:
            cell.metadata["tags"] = [*tags, "raises-exception"]
        if "check" in tags or len(kept) < len(lines):
            cell.outputs, cell.execution_count = [], None
        cell.source = "\n".join(kept)
    return lesson


def execute(notebook: nbformat.NotebookNode, size: str) -> None:
    """Runs all cells in place, in a fresh process.

    Args:
        notebook: Gets its outputs.
        size: `"full"` or `"toy"`.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises that is not tagged
            `raises-exception`.
    """
    from nbclient import NotebookClient  # the site needs addresses alone

    environment = {**os.environ, SIZE: size}
    if size == "toy":  # compiling takes most of the time there
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        # When each cell ran says nothing, and changes every time.
        cell.metadata.pop("execution", None)


def address() -> str:
    """The repository's, from the one line that holds it."""
    setup = configparser.ConfigParser()
    setup.read(HERE.parent / "setup.cfg")
    return setup["metadata"]["url"]


def move(old: str, new: str) -> None:
    """Writes another address into setup.cfg, README, the teachers' page and notebooks."""
    bare = [url.removeprefix("https://github.com/") for url in (old, new)]
    either = re.compile(f"(https://github.com/)?{re.escape(bare[0])}")
    for path in (
        HERE.parent / "setup.cfg",
        HERE.parent / "README.md",
        HERE / "TEACHERS.md",
        *HERE.glob("*.ipynb"),
        *SOLUTIONS.glob("*.ipynb"),
    ):
        # Badges have what stands behind GitHub's own address.
        text = either.sub(lambda it: new if it[1] else bare[1], path.read_text())
        path.write_text(text)


def main() -> None:
    """Builds what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lessons", nargs="*", help="beginnings of names; all if none")
    parser.add_argument("--url", help="https://github.com/OWNER/NAME, or file:// CLONE")
    options = parser.parse_args()
    if options.url:
        move(address(), options.url)
        return
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        if options.lessons and not path.name.startswith(tuple(options.lessons)):
            continue
        print(path.stem, flush=True)
        solution = nbformat.read(path, as_version=4)
        execute(solution, "full")
        nbformat.write(solution, path)
        nbformat.write(lesson_of(solution), HERE / path.name)


if __name__ == "__main__":
    main()
