"""One model for all runtimes, each runtime's answers, and the table at the end."""

import json

import pytest

from . import layouts, material, table
from .runtimes import ROOT, RUNTIMES, measure

TABLE = pytest.StashKey[str]()
PAGE = ROOT / "docs/results/runtimes.md"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The folder with the files that every runtime gets."""
    folder = tmp_path_factory.mktemp("devices")
    material.make(folder)
    return folder


@pytest.fixture(scope="session")
def found(made, request):
    """What was found or why not, by runtime; the page is written from it at the end."""
    found = {}
    yield found
    if found.keys() == set(RUNTIMES):  # not of a few tests chosen by hand
        about = json.loads((made / "about.json").read_text())
        measured = {runtime: found[runtime] for runtime in RUNTIMES}
        page = table.write(about, measured, layouts.measure())
        if not any(isinstance(it, str) for it in found.values()):  # all could be had
            PAGE.write_text(page)
        request.config.stash[TABLE] = page


@pytest.fixture(scope="session", params=RUNTIMES, ids=lambda it: it.name)
def answered(request, made, found, tmp_path_factory):
    """A runtime and what it made of every file."""
    runtime = request.param
    if runtime.missing:
        found[runtime] = runtime.missing
        pytest.skip(f"{runtime.name}: {runtime.missing}")
    found[runtime] = measure(runtime, made, tmp_path_factory.mktemp("runtime"))
    return runtime, found[runtime]


def pytest_terminal_summary(terminalreporter, config):
    if TABLE in config.stash:
        terminalreporter.section("runtimes")
        terminalreporter.write_line(config.stash[TABLE])
