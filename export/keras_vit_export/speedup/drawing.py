"""The front in a picture: top-1 against milliseconds of everything that was tried."""

import pathlib
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_vit.pictures import save_figure
from keras_vit_export.speedup.trials import Trial, front

# Marker and colour of each kind of variant, and what the legend says.
_KINDS = {
    "": ("*", "black", "as it is"),
    "size": ("o", "tab:blue", "smaller images"),
    "patch": ("s", "tab:cyan", "larger patches"),
    "pool": ("D", "tab:green", "pooled tokens"),
    "prune": ("^", "tab:orange", "pruned tokens"),
}
_TOGETHER = ("P", "tab:purple", "two together")
# How far below the budget is shown: so many times what lies above it, or so many points.
_SHOWN, _LEAST_SHOWN = 3, 5


def draw_front(
    trials: Sequence[Trial],
    chosen: Trial | None,
    max_drop: float,
    path: str | pathlib.Path,
) -> None:
    """Draws all trials; trained ones are filled, and the front is a line.

    Args:
        trials: Timed, the model as it came first.
        chosen: The one that was taken, which gets a ring.
        max_drop: Points of top-1 that may be lost: a dashed line.
        path: Where the PNG goes.
    """
    # The drop is counted from the Keras model, in points.
    budget = 100 * trials[0].top1 + trials[0].drop - max_drop
    highest = 100 * max(it.top1 for it in trials)
    floor = budget - max(_SHOWN * (highest - budget), _LEAST_SHOWN)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    best = front(trials)
    axes.step(
        [it.latency_ms for it in best],
        [100 * it.top1 for it in best],
        where="post",
        color="0.6",
        zorder=1,
    )
    _draw_trials(axes, trials, floor)
    if chosen is not None:
        place = chosen.latency_ms, 100 * chosen.top1
        ring = {"facecolors": "none", "edgecolors": "tab:red", "label": "taken"}
        axes.scatter(*place, s=240, **ring, zorder=4)
    axes.axhline(budget, color="tab:red", linestyle="--", linewidth=1, zorder=0)
    axes.text(
        0.01,
        budget,
        f"{max_drop:g} points lost",
        color="tab:red",
        fontsize=8,
        transform=axes.get_yaxis_transform(),
        va="top",
    )
    axes.set(
        xlabel="ms an image, one thread",
        ylabel="validation top-1, %",
        xlim=(0, 1.05 * max(it.latency_ms for it in trials)),
    )
    axes.set_ylim(floor, highest + 0.1 * (highest - floor))
    figure.suptitle(
        "Filled: trained after the change. Grey: nothing is faster and better. "
        "At the lower edge: worse than shown.",
        fontsize=8,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def _draw_trials(axes: Axes, trials: Sequence[Trial], floor: float) -> None:
    named = set()
    for trial in trials:
        marker, color, words = _KINDS.get(trial.variant.kind, _TOGETHER)
        filled = trial.epochs or not trial.variant.kind
        axes.scatter(
            trial.latency_ms,
            max(100 * trial.top1, floor),
            s=60,
            marker=marker,
            edgecolors=color,
            facecolors=color if filled else "white",
            label=None if words in named else words,
            clip_on=False,
            zorder=3,
        )
        named.add(words)
