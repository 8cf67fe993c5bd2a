"""The runtimes, how each is run on every file, and what came out."""

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import chromium
import numpy as np
from keras_vit_cli import web

from .material import FILES, LIFTED, REDUCED

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-devices"
GPU = "gpu"  # the one environment of a driver instead of a Python
# What is compared: images as the model takes them, and two kinds of image files.
GIVEN = ("arrays", "smaller", "larger")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One way to run a `.tflite`.

    Attributes:
        name: For the table.
        kind: Of `runner.py`, or `"browser"`.
        package: Whose version stands in the table.
        environment: Its folder in `.venv-devices`; empty if it needs none.
        refuses: Files that it does not run.
        partly: Files of which the CPU computes what the accelerator can't.
        wrong: Files that it runs and answers wrongly.
        resizes: Whether it resizes image files by a rule of its own.
        accelerator: The one that a browser must take; empty for the page's own choice.
    """

    name: str
    kind: str
    package: str
    environment: str = ""
    refuses: frozenset[str] = frozenset()
    partly: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()
    resizes: bool = False
    accelerator: str = ""

    @property
    def missing(self) -> str | None:
        """Why it can't be run here, or `None`."""
        if self.kind == "browser":
            return chromium.missing()
        return why_missing(self.environment) if self.environment else None

    @property
    def python(self) -> str:
        """The Python that it is run by: its environment's, or this one."""
        own = ENVIRONMENTS / self.environment / "bin/python"
        return str(own) if self.environment and own.exists() else sys.executable

    @property
    def variables(self) -> dict[str, str]:
        """What is to be set for it."""
        return variables() if self.environment == GPU else {}


def why_missing(environment: str) -> str | None:
    """Why there is no such folder in `.venv-devices`, or `None`."""
    if (ENVIRONMENTS / environment / "ready").exists():
        return None
    log = ENVIRONMENTS / f"{environment}.log"
    if log.is_file():
        return log.read_text().strip().splitlines()[-1]
    return "tests/runtimes/environments.sh was not run"


def variables() -> dict[str, str]:
    """With which a process finds a Vulkan; only one that starts with them."""
    lines = (ENVIRONMENTS / GPU / "variables").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


# TFLite 2.14 has no RSQRT of 16 bits, and reads one scale where a weight has several.
_OLD = frozenset({"full_int8", "int16x8"})
_SEVERAL_SCALES = frozenset({"dynamic_int8", "fast_int8", "int4"})

RUNTIMES = (
    Runtime("LiteRT `Interpreter`", "Classifier", "ai-edge-litert"),
    Runtime("LiteRT `CompiledModel`", "CompiledModel", "ai-edge-litert"),
    Runtime(
        "LiteRT `CompiledModel`, GPU",
        "CompiledModel, GPU",
        "ai-edge-litert",
        GPU,
        # It has no 16-bit integers.
        partly=frozenset({"full_int8", "int16x8"}),
    ),
    Runtime(
        "`tflite_runtime`, through `Classifier`",
        "Classifier",
        "tflite-runtime",
        "tflite-runtime",
        refuses=_OLD | _SEVERAL_SCALES,
    ),
    Runtime(
        "`tflite_runtime`, its bare `Interpreter`",
        "Interpreter",
        "tflite-runtime",
        "tflite-runtime",
        refuses=_OLD,
        wrong=_SEVERAL_SCALES,
    ),
    Runtime(
        "MediaPipe `ImageClassifier`",
        "MediaPipe",
        "mediapipe",
        "mediapipe",
        resizes=True,
    ),
    Runtime("LiteRT.js in Chromium", "browser", "@litertjs/core"),
    Runtime(
        "LiteRT.js in Chromium, WebGPU",
        "browser",
        "@litertjs/core",
        # It has no arithmetic of integers.
        refuses=frozenset({"full_int8", "int16x8"}),
        accelerator="webgpu",
    ),
    Runtime(
        "aarch64 (qemu): LiteRT `Interpreter`",
        "Classifier",
        "ai-edge-litert",
        "arm64-litert",
    ),
    Runtime(
        "aarch64 (qemu): `tflite_runtime`, through `Classifier`",
        "Classifier",
        "tflite-runtime",
        "arm64-tflite-runtime",
        # static_int8 is a segmentation fault, under qemu 7.2 at least
        refuses=_OLD | _SEVERAL_SCALES | {"static_int8", LIFTED},
    ),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a runtime made of one file.

    Attributes:
        reason: Why it does not run, or empty.
        agreement: Part of the images whose top-1 is Keras', by what was given.
        difference: Largest difference of a probability, likewise.
        ms: Median time of an array in milliseconds.
        distance: From the answer of the file's self-test, total variation.
        left: Operations that the CPU computes for an accelerator, or empty.
    """

    reason: str = ""
    agreement: dict[str, float] = dataclasses.field(default_factory=dict)
    difference: dict[str, float] = dataclasses.field(default_factory=dict)
    ms: float = 0.0
    distance: float = 0.0
    left: str = ""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A runtime's version and its result on each file.

    Attributes:
        version: Of its package.
        results: By name of the file, of `FILES`.
        reduced: The same of the models with fewer tokens, given arrays alone.
    """

    version: str
    results: dict[str, Result]
    reduced: dict[str, Result]


def measure(
    runtime: Runtime, material: pathlib.Path, scratch: pathlib.Path
) -> Measured:
    """Runs every file on a runtime.

    Args:
        runtime: One that is not missing.
        material: Folder that `material.make` filled.
        scratch: Folder for what is written in between.
    """
    expected = np.load(material / "keras.npz")
    with contextlib.ExitStack() as stack:
        if runtime.kind == "browser":
            version, answer = _browser(stack, runtime.accelerator, material, scratch)
        else:
            version, answer = _version(runtime), _process(runtime, material, scratch)
        results = {
            name: _compared(answer(name, GIVEN), {it: expected[it] for it in GIVEN})
            for name in FILES
        }
        reduced = {
            name: _compared(answer(name, ("arrays",)), {"arrays": expected[kind]})
            for kind, names in REDUCED.items()
            for name in names
        }
    return Measured(version, results, reduced)


def _compared(answer: dict | str, expected: dict[str, np.ndarray]) -> Result:
    if isinstance(answer, str):
        return Result(reason=answer)
    agreement, difference = {}, {}
    for given, rows in expected.items():
        found = np.array(answer["probabilities"][given])
        agreement[given] = float((found.argmax(1) == rows.argmax(1)).mean())
        difference[given] = float(np.abs(found - rows).max())
    told = {key: answer[key] for key in ("ms", "distance", "left")}
    return Result("", agreement, difference, **told)


def _version(runtime: Runtime) -> str:
    ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return subprocess.check_output(
        [runtime.python, "-c", ask, runtime.package], text=True
    ).strip()


def _process(runtime, material, scratch):
    """A function from a file's name, and what it is given, to what `runner.py` found,
    or why it failed."""
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"}
    environment = os.environ | runtime.variables | paths
    result = scratch / "result.json"

    def answer(name, kinds):
        result.unlink(missing_ok=True)
        runner = ROOT / "tests/runtimes/runner.py"
        model = material / f"{name}.tflite"
        run = subprocess.run(
            [runtime.python, runner, runtime.kind, model, material, result, *kinds[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if run.returncode == 0:
            return json.loads(result.read_text())
        if run.returncode < 0:
            return f"ends the process: {signal.Signals(-run.returncode).name}"
        line = run.stderr.strip().splitlines()[-1].replace(f"{model}", model.name)
        return re.sub(r"^[\w.]+: ", "", line)[:200]

    return answer


_SCRIPT = """
const { openImage } = await import("/pixels.js");
const { Classifier, readModel } = await import("/model.js");
const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const [accelerator, url, arrays, files] = args;
const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
const classifier = await Classifier.open(await readModel(bytes, "it"), { accelerator });
const { distance } = classifier.verdict;
const answers = { probabilities: {}, times: [], distance, left: "" };
try {
  for (const [name, texts] of Object.entries({ arrays, ...files })) {
    const rows = (answers.probabilities[name] = []);
    for (const text of texts) {
      const pixels = name === "arrays"
        ? decoded(text)
        : classifier.fit(await openImage(new Blob([decoded(text)])));
      const { probabilities, milliseconds } = await classifier.run(pixels);
      rows.push(probabilities);
      if (name === "arrays") answers.times.push(milliseconds);
    }
  }
} finally {
  classifier.delete();
}
return answers;
"""


def _browser(stack, accelerator, material, scratch):
    """Versions, and a function like `_process`'s, in the modules of our page."""
    names = [*FILES, *(name for names in REDUCED.values() for name in names)]
    paths = [material / f"{name}.tflite" for name in names]
    site = web.page(web.FOLDER) | web.models(paths)
    urls = {
        pathlib.Path(it["name"]).stem: f"/{it['url']}"
        for it in json.loads(site.pop("/models.json"))  # the page itself opens none
    }
    webgpu = accelerator == "webgpu"
    driver = stack.enter_context(chromium.started(scratch, webgpu))
    driver.set_script_timeout(300)  # a GPU in software may share its cores
    driver.get(stack.enter_context(chromium.served(site)).address)
    arrays = [_text(it.tobytes()) for it in np.load(material / "arrays.npy")]
    files = {
        name: [_text(path.read_bytes()) for path in sorted((material / name).iterdir())]
        for name in GIVEN[1:]
    }

    def answer(name, kinds):
        wanted = {kind: files[kind] for kind in kinds[1:]}
        found = chromium.run(driver, _SCRIPT, accelerator, urls[name], arrays, wanted)
        if isinstance(found, str):
            return found
        return found | {"ms": float(np.median(found["times"]))}

    lock = json.loads((web.FOLDER / "package-lock.json").read_text())
    version = lock["packages"]["node_modules/@litertjs/core"]["version"]
    return f"{version}, Chromium {driver.capabilities['browserVersion']}", answer


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
