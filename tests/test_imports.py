"""Imports point one way, and what must be light is light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A module may import those of its own rank and below.
RANKS = [
    {
        "keras_vit.config",
        "keras_vit_device.files",
        "keras_vit_device.latency",
        "keras_vit_device.meaning",
        "keras_vit_device.pixels",
        "keras_vit_device.pixel_scale",
        "keras_vit_device.terminal",
        "keras_vit_device.tflite.end_types",
        "keras_vit_device.tflite.labels",
        "keras_vit_device.tflite.operations",
        "keras_vit_device.tflite.tables",
    },
    {
        "keras_vit_device.accelerators",
        "keras_vit_device.images",
        "keras_vit_device.interpreters",
        "keras_vit_device.self_test",
        "keras_vit_device.tflite.metadata",
    },
    {"keras_vit_device.tflite.file"},
    {"keras_vit_device.tflite.ends"},
    {"keras_vit_device.classifier"},
    {"keras_vit_device.bulk"},
    {"keras_vit_device.tflite", "keras_vit_device"},
    {
        "keras_vit.layouts",
        "keras_vit.evaluation",
        "keras_vit.batches",
        "keras_vit.cluster",
        "keras_vit.recipes",
        "keras_vit.switching",
        "keras_vit.rand_augment",
    },
    {"keras_vit.planning"},
    {
        "keras_vit.chance",
        "keras_vit.layers",
        "keras_vit.files",
        "keras_vit.folders",
        "keras_vit.augmentation",
        "keras_vit.checkpoints",
        "keras_vit.distribution",
    },
    {"keras_vit.model", "keras_vit.pictures", "keras_vit.pipeline"},
    {
        "keras_vit.data",
        "keras_vit.trained_on",
        "keras_vit.callbacks",
        "keras_vit.distillation",
        "keras_vit.optimizer",
        "keras_vit.weights",
    },
    {
        "keras_vit.compiling",
        "keras_vit.resizing",
        "keras_vit.runs",
        "keras_vit.watching",
    },
    {"keras_vit.training", "keras_vit.explain"},
    {"keras_vit.rehearsal"},
    {"keras_vit"},
    {"keras_vit_export.recipes", "keras_vit_export.packing"},
    {
        "keras_vit_export.activations",
        "keras_vit_export.description",
        "keras_vit_export.layout",
        "keras_vit_export.machine",
    },
    {"keras_vit_export.graph", "keras_vit_export.reading"},
    {"keras_vit_export.classifiers"},
    {
        "keras_vit_export.forward",
        "keras_vit_export.half",
        "keras_vit_export.reach",
        "keras_vit_export.rewrites",
    },
    {
        "keras_vit_export.convert",
        "keras_vit_export.calibration",
        "keras_vit_export.headroom",
        "keras_vit_export.quantization",
        "keras_vit_export.report",
        "keras_vit_export.smoothing",
    },
    {
        "keras_vit_export.sensitivity",
        "keras_vit_export.plots",
        "keras_vit_export.splits",
        "keras_vit_export.wording",
    },
    {"keras_vit_export.doubts"},
    {"keras_vit_export.float_models", "keras_vit_export.page"},
    {"keras_vit_export.exporter"},
    {"keras_vit_export.budget"},
    {"keras_vit_export"},
    {"keras_vit_export.reported"},
    {"keras_vit_export.arguments"},
    {"keras_vit_export.plans"},
    {"keras_vit_export.training"},
    {
        "keras_vit_export.commands",
        "keras_vit_export.explaining",
        "keras_vit_export.inspecting",
        "keras_vit_export.published",
        "keras_vit_export.serving",
    },
    {"keras_vit_export.options"},
    {"keras_vit_export.training_options", "keras_vit_export.published_options"},
    {"keras_vit_export.cli"},
]
RANK = {module: rank for rank, modules in enumerate(RANKS) for module in modules}
PACKAGES = {
    "keras_vit_device": ROOT / "export/keras_vit_device",
    "keras_vit": ROOT / "keras_vit",
    "keras_vit_export": ROOT / "export/keras_vit_export",
}


def modules():
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = [part for part in parts if part != "__init__"]
            yield ".".join([package, *parts]), path


def home(module):
    """The ranked module that a module belongs to: a layer's file is of the layers."""
    while module not in RANK and "." in module:
        module = module.rpartition(".")[0]
    return module


def imported(path):
    """Modules of ours that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in RANK
                else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from (n for n in names if n.split(".")[0] in PACKAGES)


def wrong_way(module, path):
    for name in imported(path):
        importer, target = home(module), home(name)
        if importer != target and RANK[target] >= RANK[importer]:
            yield f"{module} imports {name}"


def test_every_module_has_a_rank():
    known = {home(module) for module, _ in modules()}
    assert known == set(RANK)


def test_imports_point_one_way():
    assert not [bad for module, path in modules() for bad in wrong_way(module, path)]


def test_an_import_that_points_back_is_found(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from keras_vit_export import cli\n")
    assert list(wrong_way("keras_vit.data", bad))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import keras_vit_export", ["tensorflow", "keras", "keras_vit", "numpy"]),
        ("import keras_vit_device.classifier", ["tensorflow", "keras", "keras_vit"]),
        ("import keras_vit_export.recipes", ["tensorflow", "keras", "numpy"]),
        (
            """from keras_vit_export.cli import main
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
