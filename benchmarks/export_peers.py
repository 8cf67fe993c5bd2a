"""Latency of the exported Vision Transformer against its peers, side by side.

    pip install 'keras-vit-edge[bench]'
    python benchmarks/export_peers.py --json peers.json

Prints the machine and the versions, how far the logits of every float32 model are from
those of the Keras model, and for each model size and number of threads two Markdown
tables: all candidates, some of this exporter's with fewer tokens or smaller images
(median milliseconds of one image, the lowest and the highest round, how many times as
fast as KerasHub in float32 and in dynamic int8, size), and the comparisons that this
project watches.

All models have the same weights and run in one process, in turn, in a new order every
round. A candidate's figure is the median of its rounds, a round's the median of its
calls. "Times as fast" is the median of the ratios round by round, between the lowest
and the highest ratio.
"""

# First, because of what it says about timm and TensorFlow.
import peers  # isort: skip

import argparse
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import Figure, count, machine
from keras_vit_device.files import write_json
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from tqdm import tqdm

import keras_vit

# Worker threads of the last candidate spin for some milliseconds before they sleep.
REST_S = 0.02
# A slow candidate gets fewer calls, so that its round lasts about this long.
ROUND_MS = 500.0
LEAST_CALLS = 3
CALIBRATION_IMAGES = 64
PARITY_IMAGES = 4
# Float32 added up in another order gives 1e-6, queries and keys of one block swapped
# give 3e-3.
PARITY_BOUND = 1e-4
Medians = dict[str, list[float]]  # milliseconds, one a round, by name


def main() -> None:
    options = parse_options()
    print("\n\n".join(machine().values()), flush=True)
    chosen = available(options.peers)
    tables = []
    for variant in options.variants:
        candidates, pixels = build(variant, options.recipes, chosen)
        for threads in options.threads:
            runs = started(candidates, threads, pixels)
            medians = round_medians(runs, options.rounds, options.calls)
            sizes = {one.name: one.size_bytes for one in candidates}
            print(f"\n## {variant}, 224 px, batch 1, {count(threads, 'thread')}\n")
            print(latency_table(medians, sizes))
            print(f"\n{comparison_table(medians)}", flush=True)
            tables.append(as_dict(variant, threads, medians, sizes))
            if options.json:
                write_json(options.json, {**machine(), "tables": tables})


def parse_options() -> argparse.Namespace:
    """The command line; lists are written `one,two`."""

    def words(text: str) -> list[str]:
        return text.split(",") if text else []

    def numbers(text: str) -> list[int]:
        return [int(word) for word in words(text)]

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variants", type=words, default=["Ti/16", "S/16"])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10, help="calls a round")
    parser.add_argument("--recipes", type=words, default=list(QUANTIZATION_RECIPES))
    parser.add_argument("--peers", type=words, default=list(peers.PEERS))
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    for name, known in (("recipes", QUANTIZATION_RECIPES), ("peers", peers.PEERS)):
        unknown = set(getattr(options, name)) - known.keys()
        if unknown:
            parser.error(f"--{name} takes {','.join(known)}. Received: {unknown}")
    return options


def available(names: list[str]) -> list[peers.Peer]:
    """The peers whose packages are there; the others are named as skipped."""
    for name in names:
        if missing := peers.PEERS[name].missing:
            print(
                f"Skipped {name}: no package {', '.join(missing)}. "
                "pip install 'keras-vit-edge[bench]'"
            )
    return [peers.PEERS[name] for name in names if not peers.PEERS[name].missing]


def build(
    variant: str, recipes: list[str], chosen: list[peers.Peer]
) -> tuple[list[peers.Candidate], np.ndarray]:
    """All candidates of one model size, and pixels to run them on.

    Raises:
        RuntimeError: If a float32 candidate computes another function.
    """
    config = keras_vit.ViTConfig.from_variant(variant, image_size=224, num_classes=1000)
    model = peers.reference_model(config)
    images = peers.smooth_images(CALIBRATION_IMAGES, config.image_size[0])
    candidates = list(peers.recipe_candidates(model, recipes, images))
    if peers.FASTER_RECIPE in recipes:
        candidates += peers.faster_candidates(model, images)
    for peer in chosen:
        candidates += peer.build(model, images)
    shown = images[:PARITY_IMAGES].astype("float32")
    differences = logits_differences(model, candidates, shown)
    print(
        f"\nLargest relative difference from the logits of the Keras {variant}, "
        f"{PARITY_IMAGES} images: "
        + ", ".join(f"{name} {value:.1e}" for name, value in differences.items()),
        flush=True,
    )
    if any(not value < PARITY_BOUND for value in differences.values()):
        raise RuntimeError(f"The bound for float32 models is {PARITY_BOUND}.")
    return candidates, shown[:1]


def logits_differences(
    model, candidates: list[peers.Candidate], images: np.ndarray
) -> dict[str, float]:
    """max |candidate - Keras| / max |Keras| for each float32 candidate."""
    expected = centred_logits(model.predict_on_batch(images))
    differences = {}
    for candidate in candidates:
        if candidate.name.endswith("float32"):
            run = candidate.start(1)
            rows = [run(candidate.prepare(image[None]))[0] for image in images]
            error = np.abs(centred_logits(np.stack(rows)) - expected)
            differences[candidate.name] = float(error.max() / np.abs(expected).max())
    return differences


def centred_logits(output: np.ndarray) -> np.ndarray:
    """Logits less their mean, also from probabilities, which lost it."""
    if output.min() >= 0 and np.allclose(output.sum(axis=1), 1, atol=1e-3):
        output = np.log(output)
    return output - output.mean(axis=1, keepdims=True)


def started(
    candidates: list[peers.Candidate], threads: int, pixels: np.ndarray
) -> dict[str, Callable[[], object]]:
    """One inference of each candidate, its input prepared, by name."""

    def bind(candidate: peers.Candidate) -> Callable[[], object]:
        run, image = candidate.start(threads), candidate.prepare(pixels)
        return lambda: run(image)

    return {candidate.name: bind(candidate) for candidate in candidates}


def round_medians(
    runs: dict[Any, Callable[[], object]], rounds: int, calls: int, seed: int = 0
) -> dict[Any, list[float]]:
    """Median milliseconds of a call, for each round and candidate, taken in turn."""
    turns, names = np.random.default_rng(seed), list(runs)
    first = {name: min(call_times(run, 2)) for name, run in runs.items()}
    medians = {name: [] for name in names}
    for _ in tqdm(range(rounds), desc="Rounds", leave=False, disable=None):
        for index in turns.permutation(len(names)):
            name = names[index]
            few = max(LEAST_CALLS, round(ROUND_MS / first[name]))
            times = call_times(runs[name], min(calls, few))
            medians[name].append(statistics.median(times))
    return medians


def call_times(run: Callable[[], object], calls: int) -> list[float]:
    """Milliseconds of each of some calls, after a rest and a call that warms up."""
    time.sleep(REST_S)
    run()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return times


def times_as_fast(medians: Medians, name: str, baseline: str | None) -> Figure | None:
    """Time of the baseline / time of the candidate; `None` if one was not measured."""
    if name not in medians or baseline not in medians:
        return None
    pairs = zip(medians[baseline], medians[name], strict=True)
    return Figure.of([base / own for base, own in pairs])


def fastest(medians: Medians, names: tuple[str, ...]) -> str | None:
    """The one of `names` with the lowest median, or `None` if there is none."""
    measured = [name for name in names if name in medians]
    return min(
        measured, key=lambda name: statistics.median(medians[name]), default=None
    )


def comparisons(medians: Medians) -> list[tuple[str | None, str | None]]:
    """Candidate and baseline of each comparison that this project watches."""
    hub_int8 = fastest(medians, peers.KERASHUB_INT8)
    int8 = fastest(medians, peers.INT8_RECIPES)
    pairs = [
        ("float32", peers.KERASHUB_FLOAT32),
        ("dynamic_int8", hub_int8),
        (int8, hub_int8),
        (int8, peers.ONNX_INT8),
        (int8, peers.TFLITE_INT8),
        (int8, peers.FLOOR),
        *((name, hub_int8) for name in peers.FASTER if name in medians),
    ]
    # dynamic_int8 may be the fastest itself.
    return list(dict.fromkeys(pairs))


def latency_table(medians: Medians, sizes: dict[str, int]) -> str:
    """All candidates, the fastest first, as a table in Markdown."""
    hub_int8 = fastest(medians, peers.KERASHUB_INT8)
    against = "times as fast as"
    titles = ("candidate", "ms an image", f"{against} {peers.KERASHUB_FLOAT32}")
    titles += (f"{against} {hub_int8 or 'KerasHub dynamic int8'}", "MB")
    lines = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|"]
    for name in sorted(medians, key=lambda name: statistics.median(medians[name])):
        ratios = [
            times_as_fast(medians, name, baseline) or "not measured"
            for baseline in (peers.KERASHUB_FLOAT32, hub_int8)
        ]
        cells = (name, Figure.of(medians[name]), *ratios, f"{sizes[name] / 1e6:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def comparison_table(medians: Medians) -> str:
    """The comparisons as a table in Markdown."""
    lines = ["| this exporter | against | times as fast |", "|---|---|---|"]
    for name, baseline in comparisons(medians):
        ratio = times_as_fast(medians, name, baseline) or "not measured"
        names = (name or "no int8 recipe", baseline or "KerasHub dynamic int8")
        lines.append(f"| {' | '.join(names)} | {ratio} |")
    return "\n".join(lines)


def as_dict(
    variant: str, threads: int, medians: Medians, sizes: dict[str, int]
) -> dict[str, Any]:
    """A table's raw figures and comparisons, for JSON."""
    watched = []
    for name, baseline in comparisons(medians):
        if ratio := times_as_fast(medians, name, baseline):
            pair = {"candidate": name, "baseline": baseline}
            watched.append(pair | {"times_as_fast": dataclasses.asdict(ratio)})
    return {
        "variant": variant,
        "threads": threads,
        "round_medians_ms": medians,
        "size_bytes": sizes,
        "comparisons": watched,
    }


if __name__ == "__main__":
    main()
