"""What reports say in words: where files run, what 16-bit floats make of them, and more.

Light: for the page, which loads nothing heavy.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_vit_export.gpu.reach import Reach
    from keras_vit_export.report.measure import Report

# What each accelerator makes of each file, by their names.
Files = Mapping[str, Mapping[str, "Reach"]]
HEAD = ("format", "on", "runs", "agreement with the CPU", "self-test", "ms an image")


def rows(found: Files) -> list[tuple[str, ...]]:
    """Cells under `HEAD`: a row for each file and accelerator that is here.

    Args:
        found: What `reach` gave, by name of the file.
    """
    return [
        (name, accelerator.upper(), *_cells(it))
        for name, by_accelerator in found.items()
        for accelerator, it in by_accelerator.items()
        if not it.is_missing
    ]


def _cells(reach: "Reach") -> tuple[str, str, str, str]:
    agreement = reach.agreement is not None and f"{reach.agreement:.2%}"
    latency = reach.latency_ms is not None and f"{reach.latency_ms:.2f}"
    return reach.runs, agreement or "-", reach.self_test or "-", latency or "-"


def notes(found: Files) -> list[str]:
    """Why files do not run wholly, and a line for each accelerator that is not here."""
    lines = []
    for name, by_accelerator in found.items():
        for accelerator, it in by_accelerator.items():
            if it.is_missing:
                lines.append(f"{accelerator.upper()}: not tried, {it.reason}.")
            elif it.reason:
                lines.append(
                    f"{name} on {accelerator.upper()}, {it.runs}: {it.reason}."
                )
    return list(dict.fromkeys(lines))


def table(found: Files) -> str:
    """Where files run, as a table in Markdown, and why not elsewhere below it."""
    lines = [HEAD, ("---",) * len(HEAD), *rows(found)]
    markdown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join([markdown, *notes(found)])


def of_half(half: Mapping[str, Any], shrunk: Mapping[str, float]) -> list[str]:
    """What a report says of 16-bit floats, a line each.

    Args:
        half: `Half.as_dict()`; empty if nothing was tried.
        shrunk: Factors of norms, by name.
    """
    if "unknown" in half:
        return [f"Not tried in 16-bit floats, for want of rules: {half['unknown']}"]
    if not half:
        return []
    lines = []
    if half["snr_db"] is not None:
        short = half["snr_of_short_sums_db"]
        sums = "infinite answers" if short is None else f"{short:.1f} dB"
        peaks = (half[kind] for kind in ("activation", "square", "sum_of_squares"))
        peak = max(peaks, key=lambda it: it["largest"])
        lines.append(
            f"In 16-bit floats, as of GPUs: {half['snr_db']:.1f} dB, {sums} where sums "
            f"are of 16 bits too; {peak['headroom_bits']:.1f} bits of room at "
            f"{peak['at']}; {half['subnormals']:.2%} of the numbers subnormal"
        )
    for name in half["overflows"]:
        lines.append(f"Infinite in 16-bit floats, on GPUs and NPUs: {name}")
    for name, factor in shrunk.items():
        lines.append(f"Shrunk by {factor:g} before its squares overflow: {name}")
    return lines


def _origin(report: "Report") -> list[str]:
    """What went into a file, and how it was made of it."""
    lines = []
    if report.pixels:
        lines.append(f"Pixels of 0..255 are scaled by {report.pixels}")
    if report.output:
        lines.append(f"The model gives {report.output}")
    if report.not_rewritten:
        lines.append(f"Not rewritten: {report.not_rewritten}")
    if report.chosen:
        lines.append(f"Chosen: {report.chosen}; {len(report.smoothed)} norms smoothed")
    if report.rotated:
        lines.append(f"Rotated: {report.rotated}")
    if report.not_rotated:
        lines.append(f"Not rotated: {report.not_rotated}")
    lines += [f"In higher precision: {scope}" for scope in report.protected]
    for purpose, split in report.splits.items():
        part = f"{split['images']} {split['split']}"
        if split["split"] == "all":
            part = f"all {split['images']}"
        lines.append(f"{purpose.capitalize()} on {part} images")
    return lines


def details(report: "Report") -> str:
    """What else a report says, a line each."""
    random = "" if report.top1 is not None else " (on random pixels)"
    difference = (
        f"Difference from Keras' probabilities{random}: largest "
        f"{report.max_difference:.1e}, mean {report.mean_difference:.1e}, cosine "
        f"{report.cosine:.6f}, SNR {report.snr_db:.1f} dB"
    )
    lines = [
        difference,
        f"{report.latency_all_threads_ms:.2f} ms on {report.threads} threads",
    ]
    if report.peak_memory_bytes is not None:
        lines.append(f"Peak memory {report.peak_memory_bytes / 1e6:.1f} MB")
    if report.tied_top1:
        lines.append(f"{report.tied_top1:.2%} of the images have two best classes")
    lines.append(
        "Operations: "
        + ", ".join(
            f"{count} {kind} {precision}"
            for kind, counts in report.operations.items()
            for precision, count in counts.items()
        )
    )
    for kind, count in report.skipped.items():
        lines.append(f"Left in floats, since the quantizer has no rule: {count} {kind}")
    for name, reason in report.pitfalls.items():
        lines.append(f"A GPU may answer wrongly: {name}, {reason}")
    if report.undecided:
        lines.append(
            f"On {report.undecided:.1%} of the images two patches are so nearly alike to "
            "attention that another runtime may keep the other"
        )
    if report.weak_self_test:
        lines.append(
            "The self-test tells little: all patterns get as good as one answer"
        )
    lines += of_half(report.half, report.shrunk)
    lines += [*report.taken_for_granted, *report.remarks]
    lines += _origin(report)
    lines.append(", ".join(f"{name} {it}" for name, it in report.environment.items()))
    if report.top1 is None:
        lines.append("Top-1 was not measured: no images with labels were given.")
    return "\n".join(lines)
