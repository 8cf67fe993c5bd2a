"""Tables of measured files."""

from collections.abc import Mapping

from keras_vit_device.terminal import say
from keras_vit_export.report import measure, wording
from keras_vit_export.report.measure import Report


def say_table(table: str) -> None:
    """A table in Markdown, between empty lines."""
    for line in ("", *table.splitlines(), ""):
        say(line)


def print_table(reports: Mapping[str, Report]) -> None:
    """Size, accuracy and latency of each."""
    say_table(measure.table(reports))


def print_reach(reports: Mapping[str, Report]) -> None:
    """Where each file runs."""
    files = {name: it.accelerators for name, it in reports.items() if name != "keras"}
    for line in (*wording.table(files).splitlines(), ""):
        say(line)
