"""A Chromium for tests, and a server on loopback for it."""

import contextlib
import pathlib
import shutil
import threading

from keras_vit_cli import web

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--window-size=412,915",
]
NO_GPU = ["--disable-gpu"]
# In software, so that every machine has it; without floats of 16 bits.
WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]


def missing():
    """Why no test can run in it, or `None`."""
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None:
            return f"{name} is missing: apt install chromium chromium-driver"
    if not (ROOT / "export/web/node_modules").is_dir():
        return "LiteRT.js is missing: npm ci --prefix export/web"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is missing: pip install -e '.[devices]'"
    return None


@contextlib.contextmanager
def started(profile, webgpu=False):
    """Selenium's driver of a Chromium with a folder for its profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    chosen = [*OPTIONS, *(WEBGPU if webgpu else NO_GPU)]
    for option in [*chosen, f"--user-data-dir={profile}"]:
        options.add_argument(option)
    service = Service(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.set_script_timeout(60)
        yield driver


@contextlib.contextmanager
def served(site):
    """A server of these contents by path."""
    with web.Server(site, 0) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        try:
            yield server
        finally:
            server.shutdown()


def run(driver, script, *arguments):
    """The value of an async function's body in the page."""
    return driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; (async (args) => {"
        f"{script}}})([...arguments]).then(done, (error) => done(String(error)))",
        *arguments,
    )
