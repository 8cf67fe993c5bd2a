"""What the runtimes gave, in Markdown."""

import datetime
import os
import platform

from keras_vit_export.report.measure import environment

from .layouts import Answers
from .material import COUNT, FILES, REDUCED, SCALES, recipe_of
from .runtimes import GIVEN, Measured, Result, Runtime

_HEAD = """\
# Every runtime

One model of {weights:,} weights, {side} x {side} pixels in colour, trained for a minute
or two, and {count} held-out images of {data} in false colours, of which Keras names
{top1:.1%} rightly. Agreement is the part whose top-1 is Keras' own. `make test-devices`
writes this page; {date}, TensorFlow {tensorflow}, Keras {keras}.

## Agreement with Keras on images of the model's size

"""
_NOTES = """
`-`: does not load, or is refused. `compat`: exported with `--compat 2.14`. `lifted`: each
query's attention weights divided by the root of their largest. **Bold**: answered wrongly
without a word. *Italic*: partly on the accelerator, the rest on the CPU;
which operations, is said below.

GPU and WebGPU are a Vulkan in software (SwiftShader): 32-bit floats; the default precision
of 16 bits was not run.

Milliseconds below are for one image of the model's size on {cores} cores ({machine})
beside other work: noisy, and under qemu no measure of a device. LiteRT.js and MediaPipe
choose their threads themselves, the others had one.
"""
_REDUCED = """
## Fewer tokens

The same model with squares of 2 x 2 patches averaged in its first block, or half of them
pruned there, each trained two epochs more: agreement with its own Keras model.

"""
_LAYOUTS = """
## Layout of the tokens, on the GPU

Before, tokens were (n, d), and no runtime said a word: a model of the bundled digits
in dynamic_int8, on its {count} test images. Agreement is with the same file on the CPU.

"""


def write(
    about: dict,
    measured: dict[Runtime, Measured | str],
    layouts: dict[str, Answers] | str,
) -> str:
    """The page `docs/results/runtimes.md`.

    Args:
        about: Of `material.make`.
        measured: By runtime; where it was skipped, the reason.
        layouts: What `layouts.measure` gave.
    """
    figures = environment()
    head = _HEAD.format(
        count=COUNT,
        date=datetime.date.today(),
        tensorflow=figures["tensorflow"],
        keras=figures["keras"],
        **about,
    )
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
    titles = _titles("runtime", *FILES)
    fewer = "".join(_fewer(kind, measured) for kind in REDUCED)
    layout = _before_and_after(layouts)
    return "".join([head, titles, *rows, notes, _REDUCED, fewer, layout, *sections])


def _fewer(kind: str, measured: dict[Runtime, Measured | str]) -> str:
    """The table of one reduction."""
    names = REDUCED[kind]
    titles = _titles(kind, *(recipe_of(name).name for name in names))
    rows = [
        _row(
            runtime.name,
            *(
                _mark(it.reduced[name], recipe_of(name).name in runtime.wrong)
                for name in names
            ),
        )
        for runtime, it in measured.items()
        if not isinstance(it, str)
    ]
    return "".join([titles, *rows, "\n"])


def _before_and_after(layouts: dict[str, Answers] | str) -> str:
    if isinstance(layouts, str):
        return f"\n{_LAYOUTS.splitlines()[1]}\n\nSkipped. {layouts}\n"
    titles = _titles("tokens", "top-1, CPU", "top-1, GPU", "agreement", "self-test")
    rows = [
        _row(
            name,
            f"{it.top1_on_cpu:.1%}",
            f"{it.top1_on_gpu:.1%}",
            f"{it.agreement:.1%}" if it.passed else f"**{it.agreement:.1%}**",
            "passed" if it.passed else f"fails: distance {it.distance:.2g}",
        )
        for name, it in layouts.items()
    ]
    count = next(iter(layouts.values())).count
    return "".join([_LAYOUTS.format(count=count), titles, *rows])


def _cell(runtime: Runtime, found: Measured, name: str) -> str:
    return _mark(found.results[name], name in runtime.wrong)


def _mark(result: Result, wrong: bool) -> str:
    """Agreement, marked as the notes say."""
    if result.reason:
        return "-"
    agreement = f"{result.agreement['arrays']:.1%}"
    if wrong:
        return f"**{agreement}**"
    return f"*{agreement}*" if result.left else agreement


def _section(found: Measured | str, file_side: int) -> str:
    if isinstance(found, str):
        return f"Skipped. {found}\n"
    given = ["arrays", *(f"files of {file_side * it} px" for it in SCALES.values())]
    titles = [f"{it}: agreement, largest difference" for it in given]
    rows, reasons = [], []
    for name, result in found.results.items():
        if said := result.reason or result.left:
            reasons.append(f"- {name}: {said}\n")
        if result.reason:
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
