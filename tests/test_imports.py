"""Imports point one way, and what must be light is light."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = {
    "keras_vit_device": ROOT / "export/keras_vit_device",
    "keras_vit": ROOT / "keras_vit",
    "keras_vit_export": ROOT / "export/keras_vit_export",
    "keras_vit_cli": ROOT / "export/keras_vit_cli",
}
# A module imports nothing of a wing after its own, and a wing has no circle.
WINGS = (
    "keras_vit_device",
    "keras_vit.backend",
    "keras_vit.config",
    "keras_vit.layers",
    "keras_vit.evaluation",
    "keras_vit.chance",
    "keras_vit.resampling",
    "keras_vit.model",
    "keras_vit.pictures",
    "keras_vit.reuse",
    "keras_vit.files",
    "keras_vit.data",
    "keras_vit.weights",
    "keras_vit.training",
    "keras_vit.features",
    "keras_vit.attention",
    "keras_vit.explain",
    "keras_vit",
    "keras_vit_export.activations",
    "keras_vit_export.gpu",
    "keras_vit_export.keras_ends",
    "keras_vit_export.keras_classifier",
    "keras_vit_export.any_classifier",
    "keras_vit_export.graph",
    "keras_vit_export.quantization",
    "keras_vit_export.report.measure",
    "keras_vit_export.splits",
    "keras_vit_export.doubts",
    "keras_vit_export.report",
    "keras_vit_export",
    "keras_vit_export.speedup",
    "keras_vit_cli",
)


def modules():
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = [part for part in parts if part != "__init__"]
            yield ".".join([package, *parts]), path


MODULES = dict(modules())


def wing(module):
    """The place of a module's wing in the order: the longest name that begins its own."""
    while module not in WINGS:
        module = module.rpartition(".")[0]
    return WINGS.index(module)


def imported(path):
    """Modules of ours that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in MODULES
                else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def wrong_way(module, path):
    for name in imported(path):
        if wing(name) > wing(module):
            yield f"{module} imports {name}"


def test_imports_point_one_way():
    assert not [bad for module, path in modules() for bad in wrong_way(module, path)]


def test_imports_go_in_no_circle():
    graph = {module: set(imported(path)) - {module} for module, path in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # raises, with the circle


def test_an_import_that_points_back_is_found(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from keras_vit_export import exporter\n")
    assert list(wrong_way("keras_vit.data.sources", bad))
    assert not list(wrong_way("keras_vit_cli.main", bad))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import keras_vit_export", ["tensorflow", "keras", "keras_vit", "numpy"]),
        ("import keras_vit_device.classifier", ["tensorflow", "keras", "keras_vit"]),
        (
            "import keras_vit_export.quantization.recipes",
            ["tensorflow", "keras", "numpy"],
        ),
        (
            """from keras_vit_cli.main import main
try: main(['train', '--help'])
except SystemExit: pass""",
            ["tensorflow", "keras", "keras_vit", "numpy", "PIL"],
        ),
    ],
)
def test_light_imports_load_nothing_heavy(statement, absent):
    check = f"import sys\nassert not set({absent}) & set(sys.modules), 'heavy'"
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
