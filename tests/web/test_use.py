"""Files, camera, keys, screen reader, small windows, and no connection."""

import base64
import json
import re

import pytest
from keras_vit_cli import web

from .page import DIGITS, digit_files, photo_files

pytestmark = pytest.mark.devices


def test_what_was_loaded_works_without_the_server(
    page, serve, colours, tmp_path, monkeypatch
):
    # So that no connection outlives the server.
    monkeypatch.setattr(web._Handler, "protocol_version", "HTTP/1.0")
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


def test_models_of_another_day_are_forgotten(page, serve, colours):
    server = serve(DIGITS)
    page.open(server)
    server.site |= web.models([colours])
    page.open(server)
    kept = page.run(
        "const cache = await caches.open('keras_vit');"
        "return (await cache.keys()).map(({ url }) => url);"
    )
    (url,) = (it["url"] for it in json.loads(server.site["/models.json"]))
    assert [path for path in kept if path.endswith(".tflite")] == [
        f"{server.address}{url}"
    ]


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
