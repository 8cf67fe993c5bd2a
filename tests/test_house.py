"""A reader finds the way: small folders, short functions, names that tell."""

import pathlib

import house

ROOT = pathlib.Path(__file__).parent.parent
# One file a command: there are more commands than a folder should have files.
MORE_FILES = {"export/keras_vit_cli"}
# What a function imports itself, and why that does not stand at the top.
WHY_INSIDE = {
    ("accelerators.py", "__init__"): "a GPU is rare, and its part of LiteRT large",
    ("any_classifier.py", "open_classifier"): "a .tflite is opened without TensorFlow",
    ("classifier.py", "operations"): "a device may have tflite_runtime alone",
    (
        "folder.py",
        "_progress",
    ): "tqdm comes with ai-edge-litert, not with tflite_runtime",
    ("interpreters.py", "find"): "one of two",
    ("pixels.py", "_register_heic"): "an extra",
    ("plots.py", "_figure"): "a page without plots is light",
    ("sources.py", "_digits"): "scikit-learn takes a second",
    (
        "sources.py",
        "_import_tfds",
    ): "TensorFlow Datasets takes seconds, and may be broken",
}
# What no file imports by its name, and yet is no room's own.
KNOWN_OTHERWISE = {
    "keras_vit.model.embed": "a part of the figure, as encoder_block is",
    "keras_vit.model.classify": "a part of the figure",
    "keras_vit_export.graph.forward.embed": "mirrors keras_vit.model",
    "keras_vit_export.graph.forward.add_branch": "mirrors keras_vit.model",
    "keras_vit_export.graph.forward.classify": "mirrors keras_vit.model",
}


def functions():
    return [it for path in house.files(ROOT) for it in house.functions(path)]


def test_no_folder_has_more_than_twelve_files():
    counts = house.measure(ROOT)["files by folder"]
    assert not {k: n for k, n in counts.items() if n > 12 and k not in MORE_FILES}


def test_a_function_fits_a_screen():
    assert not [(it.name, it.lines) for it in functions() if it.lines > 50]


def test_what_is_imported_inside_a_function_has_a_reason():
    found = {(it.file.name, it.name) for it in functions() if it.imports}
    assert found == set(WHY_INSIDE)


def test_no_function_is_named_by_a_bare_participle(tmp_path):
    assert not [it.name for it in functions() if house.is_participle(it.name)]
    (tmp_path / "bad.py").write_text("def _smoothed():\n    import os\n    return os\n")
    (bad,) = house.functions(tmp_path / "bad.py")
    assert house.is_participle(bad.name) and bad.imports == ("os",) and bad.lines == 3


def test_what_one_file_uses_has_an_underscore(tmp_path):
    found = set(house.used_at_home_alone(ROOT)) - KNOWN_OTHERWISE.keys()
    # The command line imports a command by its name, and calls its `run`.
    commands = {it for it in found if it.startswith("keras_vit_cli.")}
    assert all(it.endswith(".run") for it in commands) and found == commands
    (tmp_path / "keras_vit").mkdir()
    code = {"a": "def f(): pass\ndef g(): pass\n", "b": "from keras_vit.a import f\n"}
    for name, text in code.items():
        (tmp_path / f"keras_vit/{name}.py").write_text(text)
    assert house.used_at_home_alone(tmp_path) == ["keras_vit.a.g"]
