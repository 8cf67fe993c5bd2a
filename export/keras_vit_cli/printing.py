"""Tables of measured files."""

from collections.abc import Mapping

from keras_vit_export.report import measure, wording
from keras_vit_export.report.measure import Report


def print_table(reports: Mapping[str, Report]) -> None:
    """Size, accuracy and latency of each."""
    print("\n" + measure.table(reports) + "\n")


def print_reach(reports: Mapping[str, Report]) -> None:
    """Where each file runs."""
    files = {name: it.accelerators for name, it in reports.items() if name != "keras"}
    print(wording.table(files) + "\n")
