"""Files that are wrong, damaged or do not arrive: one line, and the page goes on."""

import io
import random
import zipfile

import pytest
from keras_vit_cli import web
from keras_vit_device.tflite import metadata

from tests.hostile.damage import bombs, damaged, mutated, whole_images

from .page import DIGITS, digit_files

pytestmark = pytest.mark.devices


def wrong_models(content):
    """Files that are no model, and what the page says of them."""
    flat = content[: content.index(b"PK\x03\x04")]
    yield "empty.tflite", b"", "is no TFLite model"
    yield "text.tflite", b"what is this?", "is no TFLite model"
    yield "page.tflite", b"<!DOCTYPE html><p>Not found", "is no TFLite model"
    yield "end.tflite", content[:-10], "is cut off or damaged"
    yield "names.tflite", content[:-300], "is cut off or damaged"
    yield "half.tflite", flat[: len(flat) // 2], "is cut off, or LiteRT.js can't"
    yield "start.tflite", flat[:100], "is cut off, or LiteRT.js can't"
    rule = {"image_size": [10**9, 10**9]}
    yield (
        "huge.tflite",
        metadata.attach(flat, [], {"preprocessing": rule}),
        "it can't take",
    )
    packed = io.BytesIO(flat)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(metadata.LABELS, "a\n" * 10)
    yield "packed.tflite", packed.getvalue(), "labels.txt is compressed"


def test_a_wrong_model_is_one_clear_line_and_the_page_goes_on(page, serve, tmp_path):
    page.open(serve(DIGITS))
    for name, content, words in wrong_models(DIGITS.read_bytes()):
        (tmp_path / name).write_bytes(content)
        page.choose(tmp_path / name, "model")
        assert f"“{name}”" in page.text("error") and words in page.text("error")
        assert len(page.text("error")) < 350 and "\n" not in page.text("error")
    page.choose(DIGITS, "model")
    (path,) = digit_files(tmp_path, 1)
    assert next(iter(page.choose(path))) == "0"


def test_a_wrong_image_is_one_clear_line_and_the_page_goes_on(page, serve, tmp_path):
    page.open(serve(DIGITS))
    (good,) = digit_files(tmp_path, 1)
    whole = good.read_bytes()
    for name, content in {
        "notes.png": b"no image",
        "empty.jpg": b"",
        "start.png": whole[:40],
        "archive.zip": b"PK\3\4",
    }.items():
        (tmp_path / name).write_bytes(content)
        page.choose(tmp_path / name)
        assert page.text("error").startswith(f"“{name}” is damaged, or no image")
        assert not page.probabilities()
    assert next(iter(page.choose(good))) == "0"


class Short(bytes):
    """Fewer than they say, as when a connection breaks."""

    def __len__(self):
        return super().__len__() + 1000


def test_a_model_that_is_cut_off_on_its_way_is_named(page, serve, monkeypatch):
    monkeypatch.setattr(web._Handler, "protocol_version", "HTTP/1.0")
    server = serve(DIGITS)
    url = next(path for path in server.site if path.endswith(".tflite"))
    whole = server.site[url]
    server.site[url] = Short(whole)
    page.driver.get(server.address)
    page.until(lambda: "did not arrive whole" in page.text("error"))
    server.site[url] = whole
    page.open(server)
    assert page.text("error") == ""


def test_a_runtime_that_crashed_is_loaded_anew(page, serve, tmp_path):
    page.open(serve(DIGITS))
    page.run(
        "const { getGlobalLiteRt } = await import('@litertjs/core');"
        "getGlobalLiteRt().liteRtWasm.compileModel = () => {"
        "throw new WebAssembly.RuntimeError('unreachable') };"
    )
    page.choose(DIGITS, "model")
    assert "LiteRT.js can't run it. unreachable" in page.text("error")
    page.choose(DIGITS, "model")
    (path,) = digit_files(tmp_path, 1)
    assert next(iter(page.choose(path))) == "0"


@pytest.mark.parametrize("lost", ["core/dist/index.js", "wasm"])
def test_a_runtime_that_does_not_arrive_is_named(page, serve, monkeypatch, lost):
    monkeypatch.setattr(web._Handler, "protocol_version", "HTTP/1.0")
    server = serve(DIGITS)
    for path, content in server.site.items():
        if path.endswith(lost):
            server.site[path] = Short(content[: len(content) // 2])
    page.driver.get(server.address)
    page.until(lambda: "LiteRT.js can't be loaded" in page.text("error"))


def judge(page, said):
    """Whether the page refused a file; else it must have answered or be ready."""
    error = page.text("error")
    assert len(error) < 350 and "\n" not in error, error
    assert error or said
    return bool(error)


@pytest.mark.parametrize("with_digest", [True, False])
def test_no_damaged_model_does_more_than_a_line(with_digest, page, serve, tmp_path):
    page.open(serve(DIGITS))
    content = DIGITS.read_bytes()
    flat = content[: content.index(b"PK\3\4")]
    read = metadata.read(content)
    whole = metadata.attach(flat, read.class_names, read.contract)
    whole = whole if with_digest else flat
    (good,) = digit_files(tmp_path, 1)
    refused = 0
    for model in damaged(whole, 500, random.Random(0), tmp_path):
        page.choose(model, "model")
        if judge(page, page.text("status")):
            refused += 1
        else:
            judge(page, page.choose(good))
    page.choose(DIGITS, "model")
    assert next(iter(page.choose(good))) == "0"
    assert refused >= (475 if with_digest else 100)


def test_no_damaged_image_does_more_than_a_line(page, serve, tmp_path):
    page.open(serve(DIGITS))
    rng, sources = random.Random(0), whole_images()
    files = [sources[index % len(sources)] for index in range(500)]
    files = [(suffix, mutated(content, rng)) for suffix, content in files]
    refused = 0
    for index, (suffix, content) in enumerate([*files, *bombs()]):
        path = tmp_path / f"{index}.{suffix}"
        path.write_bytes(content)
        refused += judge(page, page.choose(path))
    (good,) = digit_files(tmp_path, 1)
    assert next(iter(page.choose(good))) == "0"
    assert refused >= 125
