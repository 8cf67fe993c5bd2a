"""Measured exports as one HTML page that loads nothing: for people, and to keep."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from string import Template
from typing import TYPE_CHECKING

from keras_vit_export.report import wording
from keras_vit_export.report.plots import EXACT_DB, figures, significant

if TYPE_CHECKING:
    from keras_vit_export.report.measure import Report

_NOT_MEASURED = "Accuracy was not measured: no images with labels were given."
_CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d1d9e0;
  --faint: #59636e; --soft: #f6f8fa; --alert: #fff1d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117;
  --line: #3d444d; --faint: #9198a1; --soft: #161b22; --alert: #4a3300; } }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .5rem; font-size: 1.25rem; }
.summary { margin: .25rem 0 0; font-size: 1.1rem; }
.alert { margin: .75rem 0; padding: .4rem .75rem; border-radius: .4rem;
  background: var(--alert); }
.note, figcaption, footer { margin-top: .4rem; color: var(--faint); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9375rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: bottom; white-space: nowrap; }
thead th { min-width: 2.8rem; font-size: .875rem; white-space: normal; }
th:first-child { position: sticky; left: 0; background: var(--paper);
  text-align: left; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(2, 1fr); }
figure { margin: 0; min-width: 0; }
.layers { grid-column: 1 / -1; }
.card { overflow-x: auto; padding: .4rem; border: 1px solid var(--line);
  border-radius: .5rem; background: #fff; }
.card svg { display: block; width: 100%; height: auto; }
@media (max-width: 50rem) { .figures { grid-template-columns: minmax(0, 1fr); }
  .layers svg { min-width: 44rem; } }
details { margin: .5rem 0; padding: .5rem 1rem; border: 1px solid var(--line);
  border-radius: .5rem; }
summary { cursor: pointer; }
dt { margin-top: .75rem; font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
code { padding: .1em .3em; border-radius: .3em; background: var(--soft);
  font-size: .875em; }
footer { margin-top: 2rem; padding-top: .5rem; border-top: 1px solid var(--line); }
"""

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
<h1>$title</h1>
$headline
</header>
<main>
<h2>Side by side</h2>
$table
<h2>Where they run</h2>
$places
<h2>Pictures</h2>
<div class="figures">
$figures
</div>
<h2>Inside the files</h2>
$details
</main>
<footer>
$footer
</footer>
</body>
</html>
""")


def html(reports: "Mapping[str, Report]", title: str) -> str:
    """A page with everything that was measured: tables, plots, how files were made.

    Args:
        reports: By recipe, `"keras"` first, then one or more; as `measure` gives them.
        title: Its heading.

    Returns:
        HTML that needs no other file; the same for the same reports.
    """
    exports = [it for name, it in reports.items() if name != "keras"]
    return _PAGE.substitute(
        title=escape(title),
        css=_CSS,
        headline=_headline(reports, exports),
        table=_side_by_side(reports),
        places=_places({it.recipe: it.accelerators for it in exports}),
        figures="\n".join(figures(reports)),
        details="\n".join(_details(it, len(exports) == 1) for it in exports),
        footer=_footer(reports["keras"]),
    )


def _headline(reports, exports) -> str:
    keras = reports["keras"]
    others = [it for it in exports if it.recipe != "float32"] or exports
    if len(others) == 1:
        summary = _summary(others[0], reports)
    else:
        small = min(exports, key=lambda it: it.size_bytes)
        fast = min(exports, key=lambda it: it.latency_ms)
        summary = (
            f"{len(exports)} formats of one model. Smallest: {small.recipe}, "
            f"{_mb(small.size_bytes)} MB. Fastest: {fast.recipe}, "
            f"{significant(fast.latency_ms)} ms an image."
        )
    lines = [f'<p class="summary">{escape(summary)}</p>']
    if keras.top1 is None:
        noise = f"All differences here are on {keras.images} images of random pixels."
        lines.append(f'<p class="alert">{_NOT_MEASURED} {noise}</p>')
    return "\n".join(lines)


def _summary(report, reports) -> str:
    parts = [f"{report.recipe}: {_mb(report.size_bytes)} MB"]
    if report.recipe != "float32" and "float32" in reports:
        part = report.size_bytes / reports["float32"].size_bytes
        parts.append(f"{part:.0%} of float32")
    if report.top1 is not None:
        lost = _loss(report, reports["keras"])
        change = f"{abs(lost):.2f} points {'below' if lost >= 0 else 'above'} Keras"
        parts.append(f"top-1 {report.top1:.2%}, {change if lost else 'as Keras'}")
    if report.agreement is not None:
        parts.append(f"the same class as Keras for {report.agreement:.2%} of images")
    return ", ".join([*parts, f"{significant(report.latency_ms)} ms an image"]) + "."


def _loss(report, keras) -> float:
    """Points of top-1; rounded, so that no loss is not shown as minus zero."""
    return round(100 * (keras.top1 - report.top1), 2) + 0.0


def _mb(size_bytes: int) -> str:
    return significant(size_bytes / 1e6)


def _table(label: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in a box of its own that scrolls; the first column names the rows."""
    columns = "".join(f'<th scope="col">{escape(it)}</th>' for it in head)
    body = ""
    for name, *cells in rows:
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f'<tr><th scope="row">{escape(name)}</th>{data}</tr>\n'
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody>\n"
        "</table></div>"
    )


def _columns(reports) -> "dict[str, Callable[[Report], str | None]]":
    """How each column of the table shows a report; `None` where there is nothing."""
    keras = reports["keras"]
    columns = {
        "MB": lambda it: _mb(it.size_bytes),
        "top-1": lambda it: it.top1 is not None and f"{it.top1:.2%}",
        "loss, points": lambda it: it.top1 is not None and f"{_loss(it, keras):.2f}",
        "agreement": lambda it: it.agreement is not None and f"{it.agreement:.2%}",
        "largest difference": lambda it: f"{it.max_difference:.2g}",
        "mean difference": lambda it: f"{it.mean_difference:.2g}",
        "cosine": lambda it: f"{it.cosine:.6f}",
        "SNR, dB": lambda it: _decibels(it.snr_db),
        "ms, 1 thread": lambda it: significant(it.latency_ms),
        f"ms, {keras.threads} threads": lambda it: (
            it.latency_all_threads_ms and significant(it.latency_all_threads_ms)
        ),
        "peak memory, MB": lambda it: (
            it.peak_memory_bytes and _mb(it.peak_memory_bytes)
        ),
        "tied top-1": lambda it: f"{it.tied_top1:.2%}",
    }
    if not any(it.tied_top1 > 0 for it in reports.values()):
        del columns["tied top-1"]
    if keras.threads == 1:
        del columns["ms, 1 threads"]
    return columns


def _decibels(value: float) -> str:
    return "exact" if value >= EXACT_DB else f"{value:.1f}"


def _side_by_side(reports) -> str:
    columns = _columns(reports)
    keras = reports["keras"]
    rows = [
        (name, *(show(it) or "–" for show in columns.values()))
        for name, it in reports.items()
    ]
    where = f"{keras.images:,} images"
    if keras.top1 is None:
        where += " of random pixels"
    else:
        where += f", one of which is {round(100 / keras.images, 3):g} points"
    return (
        _table("Formats side by side", ["format", *columns], rows)
        + f'\n<p class="note">On {where}. Differences, cosine and SNR are of the '
        "probabilities against Keras. Keras' MB are its weights, its ms are on its own "
        "threads.</p>"
    )


def _places(found) -> str:
    tried = "Tried on this machine, on a few images. Elsewhere, the self-test tells."
    rows = wording.rows(found)
    table = _table("Where files run", wording.HEAD, rows) + "\n" if rows else ""
    notes = [tried, *wording.notes(found)]
    return table + "\n".join(f'<p class="note">{escape(it)}</p>' for it in notes)


def _details(report, alone: bool) -> str:
    count = sum(sum(it.values()) for it in report.operations.values())
    left = sum(report.skipped.values())
    summary = f"{count} operations" + (f", {left} skipped" if left else "")
    facts = {
        "Rewrites": _codes(report.rewrites)
        or escape(f"None. {report.not_rewritten}".strip()),
        "Ranges, and rounding, by": _codes([report.chosen] if report.chosen else [])
        or "not calibrated",
        "Rotated": escape(
            report.rotated or " ".join(filter(None, ("nothing", report.not_rotated)))
        ),
        "Branches smoothed": _codes(report.smoothed) or "none",
        "Protected operations": _codes(report.protected) or "none",
        "In 16-bit floats": "<br>".join(
            map(escape, wording.of_half(report.half, report.shrunk))
        )
        or "not tried",
        "Images used": escape(_images_used(report)),
    }
    listed = "".join(f"<dt>{term}</dt><dd>{it}</dd>\n" for term, it in facts.items())
    return (
        f"<details{' open' if alone else ''}><summary><b>{escape(report.recipe)}</b>: "
        f"{summary}</summary>\n{_skipped_operations(report)}{_pitfalls(report)}{_histogram(report)}\n"
        f"<dl>\n{listed}</dl>\n</details>"
    )


def _codes(names: Iterable[str]) -> str:
    return " ".join(f"<code>{escape(name)}</code>" for name in names)


def _skipped_operations(report) -> str:
    if not report.skipped:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.skipped.items())
    text = f"The quantizer skipped these, so they stayed in floats: {kinds}."
    return f'<p class="alert">{escape(text)}</p>\n'


def _pitfalls(report) -> str:
    """Operations that some GPU gets wrong."""
    return "".join(
        f'<p class="alert">{escape(f"A GPU may answer wrongly: {name}, {reason}")}</p>\n'
        for name, reason in report.pitfalls.items()
    )


def _histogram(report) -> str:
    kinds = report.operations
    precisions = list(dict.fromkeys(name for it in kinds.values() for name in it))
    rows = [
        (
            kind,
            *(str(counts.get(it, "")) for it in precisions),
            str(sum(counts.values())),
        )
        for kind, counts in kinds.items()
    ]
    label = f"Operations of {report.recipe} by type and precision"
    return _table(label, ["operation", *precisions, "all"], rows)


def _images_used(report) -> str:
    uses = [
        f"{purpose}: {it['images']:,} ({it['split']})"
        for purpose, it in report.splits.items()
    ]
    return ", ".join(uses) or "none"


def _footer(keras) -> str:
    environment = ", ".join(f"{key} {it}" for key, it in keras.environment.items())
    threads = f"on one thread and on {keras.threads}" if keras.threads > 1 else ""
    return (
        f"<p>Measured on: {escape(environment) or 'unknown'}.</p>\n"
        "<p>Latency: median of interleaved runs of one image, first runs excluded; "
        f"LiteRT {threads or 'on one thread'}, Keras on threads of its own.</p>"
    )
