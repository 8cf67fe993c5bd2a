"""The page in a real Chromium, as its user has it, and files to give to it."""

import pathlib
import time

import chromium
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = ROOT / "models/digits.tflite"
# A class name that would run if it became markup.
MARKUP = "<img src=x onerror=document.title='run'>"
NAMES = (MARKUP, "müsli", "three", "four", "five", "six", "seven")


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
        status = self.text("status")  # of an image that is there, it names the class
        return self.text("error") or "is ready" in status or ": " in status

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
