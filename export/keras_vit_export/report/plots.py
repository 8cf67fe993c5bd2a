"""Plots of measured exports, as figures of an HTML page."""

import io
import itertools
import math
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_vit_export.report.measure import Report

# Rounding of float32 alone stays below this: what is above is the same.
EXACT_DB = 150.0
# Plots show whatever is worse as this.
_LOWEST_DB = -10
# More names than these can't be read on one axis.
_MOST_NAMES = 30
# Okabe and Ito's colours, told apart by colour-blind people too; no yellow on white.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_COLORS += ("#e69f00", "#56b4e9", "#7a5195", "#000000")
_MARKERS = "os^DvPX*"
_GREY = "#8c959f"


def significant(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(digits, 0)}f}"


def figures(reports: "Mapping[str, Report]") -> list[str]:
    """Each plot as an HTML figure: sizes, latencies, and layers where they are known."""
    keras = reports["keras"]
    quality = "top-1 in percent of the images"
    if keras.top1 is None:
        quality = "SNR in dB of the probabilities for random pixels"
    sizes = (
        f"Size in megabytes (10⁶ bytes) against {quality}, one point a format: "
        "the higher and the further left, the better."
    )
    times = "Median milliseconds for one image, the shorter the better."
    figures = [
        _figure(reports, _draw_sizes, "sizes", sizes),
        _figure(reports, _draw_latencies, "latencies", times),
    ]
    if any(it.layer_snr_db for it in reports.values()):
        layers = (
            "SNR in dB of each layer's output against the unquantized file's, first "
            f"layer first: the higher, the better. {EXACT_DB:.0f} dB and more is exact."
        )
        figures.append(_figure(reports, _draw_layers, "layers", layers, (11, 4.5)))
    return figures


def _figure(reports, draw, name: str, caption: str, size=(4.9, 3.8)) -> str:
    import matplotlib.style
    from matplotlib.figure import Figure

    # Nobody's settings, and no random ids: the same reports give the same bytes.
    style = {"svg.hashsalt": name, "svg.fonttype": "path", "font.size": 9}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    file = io.StringIO()
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), reports)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    _, _, svg = file.getvalue().partition("<svg ")
    # An id may stand only once on a page, and every picture has the same ones.
    svg = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", svg)
    label = escape(caption)
    return (
        f'<figure class="{name}"><div class="card" tabindex="0">'
        f'<svg role="img" aria-label="{label}" {svg.strip()}</div>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _styles(reports) -> dict[str, dict[str, str]]:
    """Colour and marker of each format, the same in every picture."""
    exports = [name for name in reports if name != "keras"]
    pairs = zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS))
    styles = {
        name: {"color": color, "marker": marker}
        for name, (color, marker) in zip(exports, pairs)
    }
    return {"keras": {"color": _GREY, "marker": "p"}} | styles


def _draw_sizes(axes: "Axes", reports) -> None:
    if reports["keras"].top1 is None:
        reports = {name: it for name, it in reports.items() if name != "keras"}
        low, high = _ends([it.snr_db for it in reports.values()])
        heights = [min(max(it.snr_db, low), high) for it in reports.values()]
        axes.set(ylabel="SNR of probabilities, dB")
    else:
        heights = [100 * it.top1 for it in reports.values()]
        axes.set(ylabel="top-1, %")
    sizes = [it.size_bytes / 1e6 for it in reports.values()]
    points = dict(zip(reports, zip(sizes, heights, strict=True), strict=True))
    styles = _styles(reports)
    for name, point in points.items():
        axes.scatter(*point, s=36, zorder=3, **styles[name])
    room = max(0.12 * (max(heights) - min(heights)), 0.25)
    axes.set(xlabel="size, MB", xlim=(0, 1.1 * max(sizes)))
    axes.set_ylim(min(heights) - room, max(heights) + room)
    axes.grid(alpha=0.3)
    _label(axes, points)


def _label(axes: "Axes", points: dict[str, tuple[float, float]]) -> None:
    """Writes each name at its point, at the nearest place that is still free."""
    axes.figure.draw_without_rendering()  # only then is it known where points are
    scale = 72 / axes.figure.dpi
    left, bottom, right, top = axes.bbox.extents * scale
    at = {name: axes.transData.transform(it) * scale for name, it in points.items()}
    edges = left, right, bottom + 6, top - 6  # half a line is 6
    taken = [(x - 4, x + 4, y) for x, y in at.values()]
    for name, (x, y) in sorted(at.items(), key=lambda item: -item[1][1]):
        box = _free_box(x, y, 5.2 * len(name), taken, edges)
        taken.append(box)
        axes.annotate(
            name,
            points[name],
            xytext=(box[0] - x, box[2] - y),
            textcoords="offset points",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": _GREY, "shrinkB": 3},
            parse_math=False,
        ).set_in_layout(False)


def _free_box(x, y, width, taken, edges) -> tuple[float, float, float]:
    """Left, right and middle of a line of text near a point, in typographic points."""
    for line in sorted(range(-12, 13), key=abs):
        for left in (x + 7, x - 7 - width):
            box = (left, left + width, y + 12 * line)
            inside = edges[0] < box[0] and box[1] < edges[1]
            inside = inside and edges[2] < box[2] < edges[3]
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return x + 7, x + 7 + width, y


def _overlap(box, other) -> bool:
    return box[0] < other[1] and other[0] < box[1] and abs(box[2] - other[2]) < 11


def _draw_latencies(axes: "Axes", reports) -> None:
    rows = list(range(len(reports)))
    several = reports["keras"].threads
    one = [it.latency_ms for it in reports.values()]
    more = [it.latency_all_threads_ms or 0 for it in reports.values()]
    bars = {"1 thread (Keras: its own)": (one, "#3b5b7e")}
    if several > 1:
        bars[f"{several} threads"] = (more, "#9dbbdb")
    height = 0.8 / len(bars)
    for index, (label, (values, color)) in enumerate(bars.items()):
        places = [row + index * height for row in rows]
        drawn = axes.barh(places, values, height, color=color, label=label)
        texts = [significant(it) if it else "" for it in values]
        axes.bar_label(drawn, texts, padding=2, fontsize=7)
    middle = [row + (len(bars) - 1) * height / 2 for row in rows]
    axes.set_yticks(middle, list(reports), parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="ms an image")
    axes.figure.legend(loc="outside upper right", ncols=2, frameon=False)


def _draw_layers(axes: "Axes", reports) -> None:
    lines = {name: it.layer_snr_db for name, it in reports.items() if it.layer_snr_db}
    longest_first = sorted(lines.values(), key=len, reverse=True)
    layers = list(dict.fromkeys(layer for it in longest_first for layer in it))
    low, high = _ends([value for it in lines.values() for value in it.values()])
    styles = _styles(reports)
    for name, line in lines.items():
        places = [layers.index(layer) for layer in line]
        shown = [min(max(it, low), high) for it in line.values()]
        axes.plot(places, shown, label=name, markersize=4, **styles[name])
    if any(it >= EXACT_DB for line in lines.values() for it in line.values()):
        below = range(low, high, 10)
        axes.axhline(high, color=_GREY, zorder=0, linestyle=":")
        axes.set_yticks([*below, high], [*map(str, below), "exact"])
    ticks = range(0, len(layers), math.ceil(len(layers) / _MOST_NAMES))
    names = [layers[it] for it in ticks]
    axes.set_xticks(ticks, names, rotation=90, fontsize=7, parse_math=False)
    axes.set(ylabel="SNR, dB")
    axes.grid(alpha=0.3)
    legend = axes.figure.legend(loc="outside right upper", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _ends(decibels: list[float]) -> tuple[int, int]:
    """Ends of an axis in dB; what is exact comes at the upper one, above all others."""
    others = [it for it in decibels if it < EXACT_DB] or [0.0]
    low = max(10 * math.floor(min(others) / 10), _LOWEST_DB)
    return low, max(10 * math.ceil(max(others) / 10) + 10, low + 10)
