"""The page in a real Chromium: what it answers is what Python answers."""

import base64
import contextlib
import io
import json
import pathlib
import re
import time
import zipfile

import chromium
import numpy as np
import pytest
from keras_vit_export import Classifier, metadata, serving
from PIL import Image

from keras_vit_pixels import fit_image, open_image

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = ROOT / "models/digits.tflite"
# A class name that would run if it became markup.
MARKUP = "<img src=x onerror=document.title='run'>"
NAMES = (MARKUP, "müsli", "three", "four", "five", "six", "seven")

pytestmark = pytest.mark.devices


class Page:
    """The page as its user has it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, server):
        self.driver.get(server.address)
        self.until_ready()

    def element(self, name):
        return self.driver.find_element("id", name)

    def text(self, name):
        # Not what is drawn: that is cut where the window ends.
        return self.element(name).get_property("textContent")

    def until(self, happened, seconds=30):
        end = time.monotonic() + seconds
        while not (result := happened()):
            assert time.monotonic() < end, (self.text("status"), self.text("error"))
            time.sleep(0.01)
        return result

    def until_ready(self):
        self.until(lambda: "is ready" in self.text("status") or self.text("error"))

    def choose(self, path, kind="image"):
        """Gives a file to the page and waits for what it says of it."""
        self.driver.execute_script(
            "for (const id of ['status', 'error']) "
            "document.getElementById(id).textContent = ''"
        )
        self.element(f"{kind}-file").send_keys(str(path))
        self.until(self.rows if kind == "image" else self.said)
        return self.probabilities()

    def said(self):
        return self.text("error") or "ready" in self.text("status")

    def rows(self):
        return self.text("error") or (
            ": " in self.text("status") and self.probabilities()
        )

    def probabilities(self):
        """Class name -> probability, as they are listed."""
        return dict(
            self.driver.execute_script(
                "return [...document.querySelectorAll('#results li')].map((item) => "
                "[item.querySelector('.name').textContent, "
                "Number(item.dataset.probability)])"
            )
        )

    def run(self, script, *arguments):
        """The value of an async function's body in the page."""
        return chromium.run(self.driver, script, *arguments)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """An untrained colour model, with names and a cut of its own."""
    import keras
    from keras_vit_export.exporter import export

    from keras_vit import ViTConfig, build_vit

    keras.utils.set_random_seed(3)
    model = build_vit(
        ViTConfig(
            image_size=(32, 48),
            patch_size=8,
            width=32,
            depth=2,
            num_heads=2,
            mlp_dim=64,
            num_classes=len(NAMES),
            class_names=NAMES,
            resize="crop",
            interpolation="bicubic",
            crop=0.875,
        )
    )
    head = model.get_layer("head").logits
    rng = np.random.default_rng(3)
    head.kernel.assign(rng.normal(0, 1, head.kernel.shape))
    path = tmp_path_factory.mktemp("colours") / "colours.tflite"
    path.write_bytes(export(model, "float32")[0])
    return path


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    """The digits' model with bytes in and out."""
    from keras_vit_export.exporter import export

    from keras_vit import load_data
    from keras_vit.files import load_model

    model = load_model(ROOT / "models/digits.keras")
    content = export(model, "full_int8", load_data("digits"))[0]
    path = tmp_path_factory.mktemp("integers") / "integers.tflite"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def serve():
    """A function that serves models until the module's tests are over."""
    with contextlib.ExitStack() as servers:

        def start(*paths, **changed):
            site = serving.page(serving.FOLDER) | serving.models(paths) | changed
            return servers.enter_context(chromium.served(site))

        yield start


@pytest.fixture
def page(driver):
    return Page(driver)


def digit_files(folder, count, side=None):
    from sklearn.datasets import load_digits

    for index, pixels in enumerate(load_digits().images[:count]):
        image = Image.fromarray((pixels * 15.9).astype("uint8"))
        if side is not None:
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        path = folder / f"{side}-{index}.png"
        image.save(path)
        yield path


def photo(rng, height, width):
    """Soft blobs of colour, with some noise: unlike noise alone, it can be resized."""
    small = rng.integers(0, 256, (4, 5, 3)).astype("uint8")
    soft = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray((np.asarray(soft) + noise).clip(0, 255).astype("uint8"))


def photo_files(folder, count):
    rng = np.random.default_rng(5)
    for index in range(count):
        image = photo(rng, *rng.integers(20, 400, 2))
        if index % 3 == 0:
            path = folder / f"{index}.jpg"
            exif = Image.Exif()
            exif[0x0112] = 1 + index // 3 % 8  # orientation
            image.save(path, quality=90, exif=exif)
        else:
            path = folder / f"{index}.png"
            image.save(path)
        yield path


def compare(page, model, paths):
    """Images of the same top-1 here and there, and the largest difference."""
    classifier = Classifier(model)
    same, differences = 0, []
    for path in paths:
        there, here = page.choose(path), classifier(path)
        assert not page.text("error")
        same += next(iter(there)) == next(iter(here))
        differences += [abs(there[name] - here[name]) for name in there]
    print(f"\n{model.name}: top-1 equal on {same}, largest difference of ", end="")
    print(f"probabilities {max(differences):.2g}, {page.text('time')}")
    return same, max(differences)


def test_digits_get_the_answers_of_python(page, serve, tmp_path):
    page.open(serve(DIGITS))
    assert page.driver.execute_script("return crossOriginIsolated")
    paths = [*digit_files(tmp_path, 40), *digit_files(tmp_path, 40, side=40)]
    same, difference = compare(page, DIGITS, paths)
    assert same == 80
    # Activations are quantized as they come: one that rounds otherwise is a step apart.
    assert difference < 0.01


def test_photos_get_the_answers_of_python(page, serve, colours, tmp_path):
    page.open(serve(colours))
    same, difference = compare(page, colours, photo_files(tmp_path, 60))
    assert same == 60
    assert difference < 1e-4
    assert page.driver.title != "run"


def test_a_model_of_bytes_gets_the_answers_of_python(page, serve, integers, tmp_path):
    page.open(serve(integers))
    same, difference = compare(page, integers, digit_files(tmp_path, 20, side=40))
    assert same == 20
    assert difference <= 1 / 256


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return base64.b64encode(stream.getvalue()).decode()


DECODE = """
const bytes = Uint8Array.from(atob(args[0]), (letter) => letter.charCodeAt(0));
const { openImage, fitImage } = await import("/pixels.js");
return [...fitImage(await openImage(new Blob([bytes])), args[1])];
"""


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pixels_are_those_of_pillow_to_the_last_bit(
    page, serve, rng, interpolation, resize, channels
):
    page.driver.get(serve().address)
    # Tall ones among them, of which Pillow shortens the height first.
    for height, width in [(8, 12), (7, 5), (61, 33), (60, 50), (30, 9), (40, 200)]:
        noise = rng.integers(0, 256, (height, width, 3)).astype("uint8")
        for crop in (1.0, 0.9):
            rule = {
                "image_size": [8, 12],
                "channels": channels,
                "resize": resize,
                "interpolation": interpolation,
                "crop": crop,
            }
            here = fit_image(Image.fromarray(noise), **rule)
            there = page.run(DECODE, encoded(Image.fromarray(noise)), rule)
            assert there == here.ravel().tolist(), (height, width, crop)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_files_of_every_kind_are_decoded_as_pillow_does(page, serve, rng, mode):
    page.driver.get(serve().address)
    noise = rng.integers(0, 256, (9, 14, 4)).astype("uint8")
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype("uint16") * 257)
    else:
        image = Image.fromarray(noise).convert("RGB" if mode == "P" else "RGBA")
        image = image.convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    rule = {"image_size": [9, 14], "channels": 3, "resize": "stretch"}
    rule |= {"interpolation": "bilinear", "crop": 1.0}
    sent = encoded(image, **options)
    here = fit_image(open_image(io.BytesIO(base64.b64decode(sent))), **rule)
    there = page.run(DECODE, sent, rule)
    assert there == here.ravel().tolist()


def test_what_was_loaded_works_without_the_server(
    page, serve, colours, tmp_path, monkeypatch
):
    # So that no connection outlives the server.
    monkeypatch.setattr(serving._Handler, "protocol_version", "HTTP/1.0")
    server = serve(DIGITS, colours)
    page.open(server)
    (path,) = digit_files(tmp_path, 1)
    before = page.choose(path)
    server.shutdown()
    server.server_close()
    page.open(server)
    assert page.choose(path) == before
    page.driver.execute_script(
        "const models = document.getElementById('models'); models.selectedIndex = 1;"
        "models.dispatchEvent(new Event('change'));"
    )
    page.until(lambda: "Is the server running?" in page.text("error"))
    assert page.choose(path) == before


def test_models_change_as_often_as_one_likes(page, serve, colours, integers, tmp_path):
    page.open(serve(DIGITS, colours, integers))
    (path,) = digit_files(tmp_path, 1)
    page.choose(path)
    counts = []
    for index in [1, 2, 0] * 5:
        page.driver.execute_script(
            "document.getElementById('results').replaceChildren();"
            "const models = document.getElementById('models');"
            f"models.selectedIndex = {index};"
            "models.dispatchEvent(new Event('change'));"
        )
        page.until(page.probabilities)
        counts.append(set(page.probabilities()) <= set(NAMES))
    assert counts == [True, False, False] * 5


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
    monkeypatch.setattr(serving._Handler, "protocol_version", "HTTP/1.0")
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
    monkeypatch.setattr(serving._Handler, "protocol_version", "HTTP/1.0")
    server = serve(DIGITS)
    for path, content in server.site.items():
        if path.endswith(lost):
            server.site[path] = Short(content[: len(content) // 2])
    page.driver.get(server.address)
    page.until(lambda: "LiteRT.js can't be loaded" in page.text("error"))


def test_without_models_it_asks_for_one(page, serve, tmp_path):
    page.driver.get(serve().address)
    page.until(lambda: "No model yet" in page.text("status"))
    assert not page.element("open-image").is_enabled()
    page.choose(DIGITS, "model")
    (path,) = digit_files(tmp_path, 1)
    assert next(iter(page.choose(path))) == "0"
    assert page.element("models").text.strip() == "digits.tflite"


def drop(page, name, content):
    page.driver.execute_script(
        "const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));"
        "const dataTransfer = new DataTransfer();"
        "dataTransfer.items.add(new File([bytes], arguments[0]));"
        "document.body.dispatchEvent("
        "new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer }));",
        name,
        base64.b64encode(content).decode(),
    )


def test_files_can_be_dropped(page, serve, tmp_path):
    page.driver.get(serve().address)
    page.until(lambda: "No model yet" in page.text("status"))
    (path,) = digit_files(tmp_path, 1)
    drop(page, "digit.png", path.read_bytes())
    page.until(lambda: "needs a model first" in page.text("error"))
    drop(page, "digits.bin", DIGITS.read_bytes())
    page.until(lambda: "is ready" in page.text("status"))
    drop(page, "digit.png", path.read_bytes())
    page.until(page.probabilities)
    assert page.text("status") == "digit.png: 0"


def allow_camera(page, setting):
    page.driver.execute_cdp_cmd(
        "Browser.setPermission",
        {"permission": {"name": "camera"}, "setting": setting},
    )


def test_the_camera_is_watched_until_it_is_stopped(page, serve, colours):
    page.open(serve(colours))
    allow_camera(page, "granted")
    button = page.element("camera")
    button.click()
    page.until(page.probabilities)
    assert button.text == "Stop the camera"
    assert page.text("status").startswith("Camera: ")
    seen = page.driver.execute_script("return video.currentTime")
    page.until(lambda: page.driver.execute_script("return video.currentTime") > seen)
    button.click()
    page.until(lambda: page.text("status") == "The camera is off.")
    assert page.driver.execute_script("return video.srcObject") is None
    assert not page.probabilities()


def test_a_refused_camera_is_one_clear_line(page, serve):
    page.open(serve(DIGITS))
    allow_camera(page, "denied")
    page.element("camera").click()
    page.until(lambda: "The camera was refused" in page.text("error"))
    assert page.element("camera").text == "Use the camera"
    assert page.element("camera").is_enabled()


def test_keys_reach_everything_in_order_and_it_shows(page, serve):
    from selenium.webdriver.common.keys import Keys

    page.open(serve(DIGITS))
    reached = []
    for _ in range(4):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.driver.switch_to.active_element
        reached.append(focused.get_attribute("id"))
        assert focused.value_of_css_property("outline-style") == "solid"
    assert reached == ["models", "open-model", "open-image", "camera"]


def test_a_screen_reader_has_names_and_is_told_what_changes(page, serve, tmp_path):
    page.open(serve(DIGITS))
    (path,) = digit_files(tmp_path, 1)
    page.choose(path)
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    }
    assert {
        ("combobox", "Model"),
        ("button", "Open a file"),
        ("button", "Choose an image"),
        ("button", "Use the camera"),
        ("image", path.name),
        ("heading", "What does this image show?"),
        ("heading", "Answer"),
    } <= named
    roles = {role for role, _ in named}
    assert {"status", "alert", "list", "listitem", "main"} <= roles
    assert re.fullmatch(r"[\d.]+ ms an image", page.text("time"))


@pytest.mark.parametrize("width", [320, 360, 1200])
def test_it_fits_the_window(page, serve, colours, width, tmp_path):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    page.open(serve(colours))
    page.choose(next(photo_files(tmp_path, 1)))
    inside = page.driver.execute_script(
        "return [...document.querySelectorAll('body *')].every((element) => "
        "element.getBoundingClientRect().right <= innerWidth)"
        "&& document.documentElement.scrollWidth <= innerWidth"
    )
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inside


def test_models_of_another_day_are_forgotten(page, serve, colours):
    server = serve(DIGITS)
    page.open(server)
    server.site |= serving.models([colours])
    page.open(server)
    kept = page.run(
        "const cache = await caches.open('keras_vit');"
        "return (await cache.keys()).map(({ url }) => url);"
    )
    (url,) = (it["url"] for it in json.loads(server.site["/models.json"]))
    assert [path for path in kept if path.endswith(".tflite")] == [
        f"{server.address}{url}"
    ]
