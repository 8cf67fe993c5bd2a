"""The page takes and refuses the files that Python does."""

import contracts
import pytest

from .page import DIGITS

pytestmark = pytest.mark.devices


def test_the_page_takes_what_python_takes_and_refuses_what_it_refuses(
    page, serve, tmp_path
):
    page.open(serve(DIGITS))
    for index, (name, content, taken) in enumerate(contracts.cases()):
        path = tmp_path / f"{index}.tflite"
        path.write_bytes(content)
        page.choose(path, "model")
        assert bool(page.text("error")) != taken, (name, page.text("error"))
