"""On a GPU, a model answers as on the CPU, or it is refused: nothing is wrong in silence.

GPU and WebGPU are a Vulkan in software, which computes in 32-bit floats. The GPU's default
precision of 16 bits is not run here.
"""

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import chromium
import numpy as np
import pytest
from covering import COVERING
from keras_vit_cli import web
from keras_vit_device.accelerators import PARTLY, REFUSED, WHOLLY
from keras_vit_device.classifier import Classifier
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from . import layouts, random_models
from .material import LIFTED, recipe_of
from .runtimes import GPU, ROOT, variables, why_missing

pytestmark = pytest.mark.devices

NAMES = (*QUANTIZATION_RECIPES, LIFTED)
# What may become of a recipe on LiteRT's GPU; of all others, that it runs wholly.
# It has no 16-bit integers: alone they are left to the CPU, but where they are constants
# of an operation that it takes, the process ends.
ON_GPU = {
    "full_int8": {PARTLY, REFUSED},
    "int16x8": {PARTLY, REFUSED},
}
# On WebGPU; float16 and fast_int8 hold the same operations as two of these.
ON_WEBGPU = tuple(it for it in NAMES if it not in ("float16", "fast_int8"))
# There, a page takes the whole model or nothing.
NOT_ON_WEBGPU = ("full_int8", "int16x8")
REFUSALS = ("WebGPU has not all of its operations.", "Aborted()")
# Both compute in 32-bit floats where a recipe leaves them.
FLOAT_BOUND = 1e-5
COUNT = 16
PUBLISHED_COUNT = 4  # a GPU in software takes 1 to 5 seconds for one
PUBLISHED = ("float32", "float16", "dynamic_int8", "fast_int8", "static_int8")
PUBLISHED_ON_WEBGPU = ("float32", "dynamic_int8")


@pytest.fixture
def vulkan(monkeypatch):
    """A Vulkan for processes that start from here; this one has looked for it before."""
    if reason := why_missing(GPU):
        pytest.skip(f"There is no GPU in software: {reason}")
    for name, value in variables().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def pixels():
    return random_models.make_pixels(COUNT)


@pytest.fixture(scope="module")
def covering(pixels):
    """The files by recipe, in the order of `COVERING`."""
    files = [random_models.covering_files(it, pixels) for it in range(len(COVERING))]
    return {name: [it[name] for it in files] for name in NAMES}


@pytest.fixture(scope="module")
def photos():
    return random_models.make_pixels(COUNT, (224, 224, 3))


@pytest.fixture(scope="module")
def published(photos):
    """Ti/16 by recipe."""
    return random_models.published_files(photos, PUBLISHED)


def check_answers(name, rows, expected):
    """They are the CPU's, up to what a recipe's rounding explains."""
    recipe = recipe_of(name)
    bound = FLOAT_BOUND if recipe.weight_types[0] != "INT8" else recipe.tolerance
    distance = 0.5 * np.abs(rows - expected).sum(axis=1).max()
    assert distance <= bound, name
    second, first = np.sort(expected, axis=1)[:, -2:].T
    apart = first - second > bound  # others are as good as tied
    # Rounded to 4 bits, random layers bring answers nearer to each other.
    assert apart.mean() >= (0.25 if recipe.is_narrow else 0.3)
    same = rows.argmax(axis=1) == expected.argmax(axis=1)
    assert same[apart].all(), name
    return distance


def test_the_answers_to_the_covering_set_are_set_apart(covering, pixels):
    # Else the tests below could not fail.
    for content in covering["float32"]:
        rows = Classifier(content).probabilities(pixels)
        assert len(set(rows.argmax(axis=1))) > 1
        others = 0.5 * np.abs(rows - np.roll(rows, 1, axis=0)).sum(axis=1)
        assert others.mean() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_every_option_on_the_gpu_answers_as_on_the_cpu(name, vulkan, covering, pixels):
    classifiers = [Classifier(it) for it in covering[name]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        trials = list(pool.map(lambda it: it.attempt(pixels), classifiers))
    runs = {it.runs: it.reason for it in trials}
    assert runs.keys() <= ON_GPU.get(name, {WHOLLY}), runs
    for classifier, trial in zip(classifiers, trials, strict=True):
        if trial.rows is not None:
            assert len(trial.rows) == COUNT
            check_answers(name, trial.rows, classifier.probabilities(pixels))


ANSWERS = """
const { Classifier, readModel } = await import("/model.js");
const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const [url, images] = args;
const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
const model = await readModel(bytes, "it");
const classifier = await Classifier.open(model, { accelerator: "webgpu" });
try {
  const rows = [];
  for (const text of images) rows.push((await classifier.run(decoded(text))).probabilities);
  return rows;
} finally {
  classifier.delete();
}
"""


@pytest.fixture(scope="module")
def webgpu(tmp_path_factory):
    """A driver of a Chromium with WebGPU."""
    if reason := chromium.missing():
        pytest.skip(reason)
    profile = tmp_path_factory.mktemp("webgpu")
    with chromium.started(profile, webgpu=True) as driver:
        driver.set_script_timeout(300)
        yield driver


def in_browser(driver, contents, pixels):
    """Rows of each file, or the error in words."""
    images = [base64.b64encode(it.tobytes()).decode() for it in pixels]
    files = {f"/{index}.tflite": it for index, it in enumerate(contents)}
    with chromium.served(web.page(web.FOLDER) | files) as server:
        driver.get(server.address)
        return [chromium.run(driver, ANSWERS, url, images) for url in files]


@pytest.mark.parametrize("name", ON_WEBGPU)
def test_every_option_on_webgpu_answers_as_on_the_cpu(name, webgpu, covering, pixels):
    found = in_browser(webgpu, covering[name], pixels)
    for content, rows in zip(covering[name], found, strict=True):
        if name in NOT_ON_WEBGPU:
            assert any(it in rows for it in REFUSALS), rows
        else:
            assert isinstance(rows, list), rows
            expected = Classifier(content).probabilities(pixels)
            check_answers(name, np.array(rows), expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_size_on_the_gpu_answers_as_on_the_cpu(
    name, vulkan, published, photos
):
    some = photos[:PUBLISHED_COUNT]
    classifier = Classifier(published[name])
    trial = classifier.attempt(some, patience=300)
    assert trial.runs == WHOLLY, trial.reason
    assert len(trial.rows) == PUBLISHED_COUNT
    check_answers(name, trial.rows, classifier.probabilities(some))


@pytest.mark.parametrize("name", PUBLISHED_ON_WEBGPU)
def test_a_published_size_on_webgpu_answers_as_on_the_cpu(
    name, webgpu, published, photos
):
    some = photos[:PUBLISHED_COUNT]
    (rows,) = in_browser(webgpu, [published[name]], some)
    assert isinstance(rows, list), rows
    expected = Classifier(published[name]).probabilities(some)
    check_answers(name, np.array(rows), expected)


def test_the_old_layout_was_wrong_on_the_gpu_and_the_new_one_is_right():
    found = layouts.measure()
    if isinstance(found, str):
        pytest.skip(found)
    old, new = found.values()
    assert old.top1_on_cpu > 0.95 and new.top1_on_cpu > 0.95
    assert old.agreement < 0.5 and not old.passed
    assert new.agreement > 0.98 and new.passed


OPEN = """
import sys
from keras_vit_export import Classifier
try:
    classifier = Classifier(sys.argv[1], accelerator=sys.argv[2])
except ValueError as error:
    print(error)
else:
    print(classifier.accelerator, classifier.verdict.passed)
"""


def opened(model, accelerator):
    """What a process of its own says of a file, in its two streams."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "export")))
    run = subprocess.run(
        [sys.executable, "-c", OPEN, model, accelerator],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return run.stdout.strip(), run.stderr.strip().splitlines()


def test_a_file_that_the_gpu_answers_wrongly_is_not_opened_there(vulkan):
    said, _ = opened(layouts.OLD, "gpu")
    assert said.startswith(
        f"'{layouts.OLD}' fails its self-test on the GPU: expected 6"
    )
    assert "55.1%, got " in said
    assert opened(layouts.OLD, "cpu")[0] == "cpu True"


def test_of_a_wrong_gpu_auto_takes_the_cpu_and_says_why_in_one_line(vulkan):
    said, errors = opened(layouts.OLD, "auto")
    assert said == "cpu True"
    (line,) = [it for it in errors if "runs on" in it]
    assert "runs on the CPU: the GPU fails the self-test, expected 6 55.1%" in line


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_a_new_file_passes_its_self_test_on_both(accelerator, vulkan):
    said, _ = opened(ROOT / "models/digits.tflite", accelerator)
    assert said == f"{accelerator} True"
