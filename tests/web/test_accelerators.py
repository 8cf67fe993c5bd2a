"""The page takes WebGPU where a file's self-test is passed sooner there, else WASM."""

import base64
import contextlib

import pytest
from foreign import with_contract
from keras_vit_device.self_test import KEY, Pattern, SelfTest
from keras_vit_device.tflite import metadata
from keras_vit_export import Classifier

from .page import DIGITS, ROOT, digit_files, photo_files

pytestmark = pytest.mark.devices

# Graphs were laid out like this when LiteRT's GPU answered them wrongly, in silence.
OLD_LAYOUT = ROOT / "tests/runtimes/old_layout.tflite"


def self_test_of(path):
    return metadata.read(path.read_bytes()).contract[KEY]


DRAW = """
const { draw } = await import("/self-test.js");
return args[0].map(([pattern, shape]) => [...draw(pattern, shape)]);
"""


def test_patterns_are_those_of_python(page, serve, rng):
    page.driver.get(serve().address)
    wanted = []
    for _ in range(60):
        low = int(rng.integers(0, 256))
        pattern = {
            "seed": int(rng.integers(0, 40)),
            "cell": int(rng.integers(1, 9)),
            "low": low,
            "span": int(rng.integers(0, 256 - low)),
        }
        shape = [*map(int, rng.integers(1, 40, 2)), int(rng.choice([1, 3]))]
        wanted.append((pattern, shape))
    wanted.append(({"seed": 2, "cell": 1, "low": 0, "span": 255}, [300, 250, 3]))
    for (pattern, shape), drawn in zip(wanted, page.run(DRAW, wanted), strict=True):
        assert drawn == Pattern(**pattern).draw(tuple(shape)).ravel().tolist()


JUDGE = """
const { find, judge } = await import("/self-test.js");
return args[0].map(([stored, answer]) =>
  judge(find({ self_test: stored, sha256: stored.sha256 }, answer.length), answer));
"""


def test_answers_are_judged_as_python_does(page, serve, rng):
    page.driver.get(serve().address)
    given = []
    for index in range(40):
        count = int(rng.integers(2, 30))
        right, answer = rng.dirichlet([0.3] * count, 2)
        answer = right + rng.choice([0.01, 0.2, 1]) * (answer - right)
        classes = sorted(rng.permutation(count)[: max(1, count // 2)].tolist())
        stored = {
            "pattern": {"seed": 0, "cell": 1, "low": 0, "span": 1},
            "probabilities": right[classes if index % 2 else slice(None)].tolist(),
            "tolerance": 0.1,
            "sha256": "its",
        }
        stored |= {"classes": classes} if index % 2 else {}
        given.append((stored, answer.tolist()))
    verdicts = page.run(JUDGE, given)
    for (stored, answer), there in zip(given, verdicts, strict=True):
        here = SelfTest.from_dict(stored).judge(answer)
        assert there["distance"] == pytest.approx(here.distance, abs=1e-12)
        assert there["passed"] == here.passed
        assert (*there["expected"],) == here.expected
        assert (*there["given"],) == here.given
    assert {it["passed"] for it in verdicts} == {True, False}


def test_an_answer_without_numbers_fails(page, serve):
    page.driver.get(serve().address)
    test = {"classes": [0, 1], "probabilities": [0.5, 0.5], "tolerance": 0.1}
    assert not page.run(
        "const { judge } = await import('/self-test.js');"
        "return judge(args[0], [NaN, NaN]).passed",
        test,
    )


@pytest.mark.parametrize(
    ("wasm", "webgpu", "accelerator", "reason"),
    [
        (2, {"passed": True, "milliseconds": 1}, "webgpu", "1.00 ms, WASM 2.00 ms"),
        (1, {"passed": True, "milliseconds": 20}, "wasm", "1.00 ms, WebGPU 20 ms"),
        (1, {"passed": True, "milliseconds": 1}, "wasm", "1.00 ms, WebGPU 1.00 ms"),
        (2, {"passed": False, "milliseconds": 1}, "wasm", "WebGPU answers wrongly"),
        (2, {"refused": "no WebGPU here"}, "wasm", "no WebGPU here"),
    ],
)
def test_webgpu_is_taken_only_if_it_is_right_and_faster(
    page, serve, wasm, webgpu, accelerator, reason
):
    page.driver.get(serve().address)
    chosen = page.run(
        "const { choose } = await import('/model.js');"
        "return choose({ milliseconds: args[0] }, args[1])",
        wasm,
        webgpu,
    )
    assert chosen["accelerator"] == accelerator
    assert chosen["reason"].endswith(reason)


VERDICTS = """
const { Classifier, readModel } = await import("/model.js");
const bytes = Uint8Array.from(atob(args[0]), (letter) => letter.charCodeAt(0));
const verdicts = {};
for (const accelerator of ["wasm", "webgpu"]) {
  const classifier = await Classifier.open(await readModel(bytes, "it"), { accelerator });
  verdicts[accelerator] = { ...classifier.verdict, on: classifier.accelerator };
  classifier.delete();
}
return verdicts;
"""


def verdicts(page, path):
    """On the self-test, by accelerator."""
    found = page.run(VERDICTS, base64.b64encode(path.read_bytes()).decode())
    assert all(it["on"] == name for name, it in found.items()), found
    print(f"\n{path.name}:", {name: it["distance"] for name, it in found.items()})
    return found["wasm"], found["webgpu"]


def test_a_file_passes_its_self_test_on_both(webgpu_page, serve, colours):
    webgpu_page.driver.get(serve().address)
    for verdict in verdicts(webgpu_page, colours):
        assert verdict["passed"]
        assert verdict["distance"] < 1e-4  # 32-bit floats on both


def test_a_wrong_webgpu_is_found_out_and_the_page_answers_rightly(
    webgpu_page, serve, tmp_path
):
    webgpu_page.open(serve(OLD_LAYOUT))
    assert webgpu_page.text("accelerator") == "WASM: WebGPU answers wrongly"
    answers_are_those_of_python(webgpu_page, OLD_LAYOUT, digit_files(tmp_path, 5))
    wasm, webgpu = verdicts(webgpu_page, OLD_LAYOUT)
    assert wasm["distance"] < 0.01
    assert not webgpu["passed"] and webgpu["distance"] > 0.2


def answers_are_those_of_python(page, model, paths):
    classifier = Classifier(model)
    for path in paths:
        there, here = page.choose(path), classifier(path)
        assert there == pytest.approx({name: here[name] for name in there}, abs=1e-2)
        assert next(iter(there)) == next(iter(here))


def test_the_page_tells_the_time_of_both(webgpu_page, serve, colours, tmp_path):
    from re import fullmatch

    webgpu_page.open(serve(colours))
    text = webgpu_page.text("accelerator")
    assert fullmatch(
        r"WASM: [\d.]+ ms, WebGPU [\d.]+ ms"
        r"|WebGPU: passes the file’s self-test, [\d.]+ ms, WASM [\d.]+ ms",
        text,
    )
    webgpu_page.choose(next(photo_files(tmp_path, 1)))
    assert webgpu_page.text("accelerator") == text


def replaced(text, by):
    """The page with other words in `model.js`."""
    script = (ROOT / "export/web/model.js").read_text()
    assert script.count(text) == 1
    return {"/model.js": script.replace(text, by).encode()}


@contextlib.contextmanager
def beforehand(page, script):
    """Runs a script in each page that is opened, before its own."""
    added = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": script}
    )
    yield
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


WATCHED = """
const ask = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...options) {
  return (window.device = await ask.apply(this, options));
};
"""


def test_a_faster_webgpu_gets_the_answers_of_python_until_it_is_lost(
    webgpu_page, serve, colours, tmp_path
):
    faster = replaced("webgpu.milliseconds < wasm.milliseconds", "true")
    first, *paths, last = photo_files(tmp_path, 12)
    with beforehand(webgpu_page, WATCHED):
        webgpu_page.open(serve(colours, **faster))
        assert webgpu_page.text("accelerator").startswith("WebGPU: passes the file’s")
        answers_are_those_of_python(webgpu_page, colours, [first, *paths])
        found, exact = webgpu_page.choose(first), Classifier(colours)(first)
        assert found == pytest.approx({name: exact[name] for name in found}, abs=1e-4)
        webgpu_page.run("device.destroy(); await device.lost")
        answers_are_those_of_python(webgpu_page, colours, [last])
        assert not webgpu_page.text("error")


@pytest.mark.parametrize(
    "silent",
    [
        "GPU.prototype.requestAdapter",
        "GPUAdapter.prototype.requestDevice",
        "GPUBuffer.prototype.mapAsync",
    ],
)
def test_a_webgpu_that_does_not_answer_leaves_wasm(
    webgpu_page, serve, colours, tmp_path, silent
):
    soon = replaced("WEBGPU_LIMIT_MS = 5000", "WEBGPU_LIMIT_MS = 700")
    with beforehand(webgpu_page, f"{silent} = () => new Promise(() => {{}});"):
        webgpu_page.open(serve(colours, **soon))
        assert webgpu_page.text("accelerator") == "WASM: WebGPU does not answer"
        answers_are_those_of_python(webgpu_page, colours, photo_files(tmp_path, 2))
        webgpu_page.choose(colours, "model")
        assert webgpu_page.text("accelerator") == "WASM: WebGPU does not answer"


REFUSES = "GPUAdapter.prototype.requestDevice = async () => { throw new Error('no') };"
CRASHES = """
const { getGlobalLiteRt } = await import("@litertjs/core");
const wasm = getGlobalLiteRt().liteRtWasm;
const compile = wasm.compileModel;
wasm.compileModel = (environment, model, options) => {
  if (options.accelerator === "webgpu") throw new WebAssembly.RuntimeError("unreachable");
  return compile(environment, model, options);
};
"""


def test_a_webgpu_that_refuses_or_crashes_leaves_wasm(
    webgpu_page, serve, colours, tmp_path
):
    server = serve(colours)
    with beforehand(webgpu_page, REFUSES):
        webgpu_page.open(server)
    assert webgpu_page.text("accelerator") == "WASM: WebGPU can’t run it"
    webgpu_page.open(server)
    webgpu_page.run(CRASHES)
    for _ in range(2):
        webgpu_page.choose(colours, "model")
        assert webgpu_page.text("accelerator") == "WASM: WebGPU crashed"
    answers_are_those_of_python(webgpu_page, colours, photo_files(tmp_path, 2))


def test_without_webgpu_the_page_works(page, serve, colours, tmp_path):
    page.open(serve(colours))
    assert page.text("accelerator") == "WASM: no WebGPU here"
    answers_are_those_of_python(page, colours, photo_files(tmp_path, 2))
    with beforehand(page, "delete Navigator.prototype.gpu;"):
        page.open(serve(colours))
    assert page.text("accelerator") == "WASM: no WebGPU here"


def test_webgpu_is_not_tried_on_what_it_crashes_on(
    webgpu_page, serve, colours, tmp_path
):
    path = tmp_path / "int4.tflite"
    path.write_bytes(with_contract(colours.read_bytes(), recipe="int4"))
    webgpu_page.open(serve(path))
    assert webgpu_page.text("accelerator") == "WASM: WebGPU can’t run 4-bit weights"


def test_a_file_without_a_self_test_is_run_on_wasm(webgpu_page, serve, tmp_path):
    path = tmp_path / "plain.tflite"
    path.write_bytes(with_contract(DIGITS.read_bytes(), **{KEY: None}))
    webgpu_page.open(serve(path))
    assert webgpu_page.text("accelerator") == "WASM: the file carries no self-test"
    (digit,) = digit_files(tmp_path, 1)
    assert next(iter(webgpu_page.choose(digit))) == "0"


def useless():
    """Self-tests that can't be used, and what the page says of their files."""
    whole = self_test_of(OLD_LAYOUT)
    shape = {
        "a word": "yes",
        "nothing": {},
        "pattern": whole | {"pattern": {"seed": 0, "cell": 0, "low": 0, "span": 1}},
        "fractions": whole | {"pattern": whole["pattern"] | {"cell": 0.5}},
        "tolerance": whole | {"tolerance": 1.5},
        "fewer": whole | {"classes": [0, 1]},
        "more": whole | {"classes": [*range(9), 10]},
        "words": whole | {"probabilities": ["a"] * 10},
        "list": whole | {"probabilities": 3},
    }
    for name, test in shape.items():
        yield name, test, "is damaged: its self-test is damaged."
    foreign = whole | {"sha256": "0" * 64}
    yield "foreign", foreign, "is damaged: its self-test is that of another model."
    turned = whole | {"probabilities": whole["probabilities"][::-1]}
    yield "turned", turned, "fails its self-test here: expected 3 55.1%, got 6 55.1%"


def test_a_useless_self_test_is_one_clear_line(page, serve, tmp_path):
    page.open(serve(OLD_LAYOUT))
    for name, test, words in useless():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(with_contract(OLD_LAYOUT.read_bytes(), **{KEY: test}))
        page.choose(path, "model")
        assert page.text("error").startswith(f"“{path.name}” {words}")
        assert len(page.text("error")) < 350 and "\n" not in page.text("error")
        assert page.text("accelerator") == ""
    page.choose(OLD_LAYOUT, "model")
    assert page.text("accelerator") == "WASM: no WebGPU here"
