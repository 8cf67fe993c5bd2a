"""Lessons as on Colab: the first cell of the first one installs keras_vit.

    python tests/versions/lessons.py CLONE

CLONE becomes a clone of this repository, and the address that is installed from.
"""

import pathlib
import subprocess
import sys
import time

import nbformat

ROOT = pathlib.Path(__file__).parents[2]


def main() -> None:
    """Runs all, each in a process of its own."""
    clone = pathlib.Path(sys.argv[1]).resolve()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    build = clone / "notebooks/build.py"
    address = f"file://{clone}"
    subprocess.run([sys.executable, build, "--url", address], check=True)
    sys.path.insert(0, str(build.parent))
    from build import SOLUTIONS, execute

    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        begin, notebook = time.perf_counter(), nbformat.read(path, as_version=4)
        assert f"%pip install -q git+{address}\n" in notebook.cells[1].source
        execute(notebook, "toy")
        outputs = [it for cell in notebook.cells for it in cell.get("outputs", [])]
        red = [it.text for it in outputs if it.get("name") == "stderr"]
        assert not red, f"{path.stem}: {red[0]}"
        print(f"{path.stem}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
