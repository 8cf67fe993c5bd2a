"""What is said where Keras is set up for another library."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_vit

ROOT = pathlib.Path(__file__).parent.parent
JAX = {"backend": "jax"}
FIRST = {"image_data_format": "channels_first"}


def run(tmp_path, settings, arguments, **environment):
    """A Python of its own, with this keras.json."""
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "KERAS_HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=kept | paths | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "environment", "received"),
    [
        (JAX, {}, "'jax', from '{0}/keras.json'"),
        ({}, {"KERAS_BACKEND": "torch"}, "'torch', from the environment's KERAS_"),
        (FIRST, {"KERAS_BACKEND": "tensorflow"}, "'channels_first', from '{0}/"),
    ],
)
def test_an_import_says_what_keras_must_be_before_anything_loads(
    settings, environment, received, tmp_path
):
    code = "import keras_vit"
    done = run(tmp_path, settings, ["-c", code], **environment)
    (*_, last), loaded = done.stderr.splitlines(), "oneDNN" in done.stderr
    assert last.startswith("ImportError: keras_vit needs Keras with") and not loaded
    assert f"Received: {received.format(tmp_path)}" in last


def test_the_command_line_runs_on_tensorflow_whatever_is_set(tmp_path):
    path = ROOT / "models/digits.tflite"
    image = next(ROOT.glob("models/*-shows-*.png"))
    command = ["-m", "keras_vit_cli.main", "classify"]
    done = run(tmp_path, FIRST, [*command, path, image], KERAS_BACKEND="jax")
    assert done.returncode == 0 and ": " in done.stdout
    (line,) = done.stderr.splitlines()
    assert "KERAS_BACKEND=jax is passed over" in line


def test_a_command_that_loads_keras_says_it_in_one_line(tmp_path):
    model, image = ROOT / "models/digits.keras", next(ROOT.glob("models/*-shows-*.png"))
    command = ["-m", "keras_vit_cli.main", "classify", model, image]
    done = run(tmp_path, JAX | FIRST, command)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "channels_last" in line and str(tmp_path) in line
    assert run(tmp_path, JAX, command).returncode == 0


def test_a_call_that_came_later_is_noticed_when_a_model_is_built(tiny):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ImportError, match="from a call in this program"):
            keras_vit.build_vit(tiny())
    finally:
        keras.config.set_image_data_format("channels_last")
    assert keras_vit.build_vit(tiny())
