"""What the runtimes gave, in Markdown."""

import os
import platform

from .material import COUNT, FILES, SCALES
from .runtimes import GIVEN, Measured, Runtime

_HEAD = """\
# Every runtime

One model of {weights:,} weights, {side} x {side} pixels in colour, trained for a minute
or two, and {count} held-out images of {data} in false colours, of which Keras names
{top1:.1%} rightly. Agreement is the part whose top-1 is Keras' own. `make test-devices`
writes this page.

## Agreement with Keras on images of the model's size

"""
_NOTES = """
`-`: does not load, or is refused. `compat`: exported with `--compat 2.14`. **Bold**:
answered wrongly without a word.

Milliseconds below are for one image of the model's size on {cores} cores ({machine})
beside other work: noisy, and under qemu no measure of a device. LiteRT.js and MediaPipe
choose their threads themselves, the others had one.
"""


def write(about: dict, measured: dict[Runtime, Measured | str]) -> str:
    """The page `benchmarks/devices.md`.

    Args:
        about: Of `material.make`.
        measured: By runtime; where it was skipped, the reason.
    """
    head = _HEAD.format(count=COUNT, **about)
    notes = _NOTES.format(cores=os.cpu_count(), machine=platform.machine())
    rows = [
        _row(runtime.name, *(_cell(runtime, found, name) for name in FILES))
        for runtime, found in measured.items()
        if not isinstance(found, str)
    ]
    sections = [
        f"\n## {runtime.name}\n\n{_section(found, about['file_side'])}"
        for runtime, found in measured.items()
    ]
    return "".join([head, _titles("runtime", *FILES), *rows, notes, *sections])


def _cell(runtime: Runtime, found: Measured, name: str) -> str:
    result = found.results[name]
    if result.reason:
        return "-"
    agreement = f"{result.agreement['arrays']:.1%}"
    return f"**{agreement}**" if name in runtime.wrong else agreement


def _section(found: Measured | str, file_side: int) -> str:
    if isinstance(found, str):
        return f"Skipped. {found}\n"
    given = ["arrays", *(f"files of {file_side * it} px" for it in SCALES.values())]
    titles = [f"{it}: agreement, largest difference" for it in given]
    rows, reasons = [], []
    for name, result in found.results.items():
        if result.reason:
            reasons.append(f"- {name}: {result.reason}\n")
            continue
        figures = [
            f"{result.agreement[it]:.1%}, {result.difference[it]:.1g}" for it in GIVEN
        ]
        rows.append(_row(name, *figures, f"{result.ms:.2f}"))
    table = "".join([_titles("recipe", *titles, "ms"), *rows])
    return (
        f"Version {found.version}\n\n{table}"
        + ("\n" if reasons else "")
        + "".join(reasons)
    )


def _titles(*titles: str) -> str:
    return _row(*titles) + "|---" * len(titles) + "|\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
