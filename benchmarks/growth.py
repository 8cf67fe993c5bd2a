"""How latency and memory of an exported model grow with tokens, depth and width.

    pip install 'keras-vit-edge[bench]'
    python benchmarks/growth.py --output growth.png --json growth.json

Prints the machine, the versions and a Markdown table of each model and recipe: tokens,
depth, width, median milliseconds of one image (lowest and highest round) and peak
memory. Draws them as six plots: Ti/16 from 96 to 384 px (37 to 577 tokens), Ti/16 at
224 px with 2 to 12 blocks, and 6 blocks at 224 px from 64 to 384 wide, heads 64 wide.
The weights are random.

Latency is measured in one process, all models in turn. Memory is that of a fresh process
that loads one file and runs it with ai-edge-litert: the highest resident size less that
before loading. It is read from Linux's /proc.
"""

# First, because of what its module `peers` says about timm and TensorFlow.
from export_peers import round_medians, started  # isort: skip

import argparse
import dataclasses
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import peers
from figures import Figure, count, machine
from keras_vit_device.files import whole_file, write_json
from keras_vit_export import export
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from tqdm import tqdm

import keras_vit

IMAGE_SIZES = (96, 128, 160, 224, 288, 384)
DEPTHS = (2, 4, 6, 12)
WIDTHS = (64, 128, 192, 384)
HEAD_WIDTH = 64
AXIS_LABELS = {
    "tokens": "tokens (Ti/16, 96 to 384 px)",
    "depth": "depth (blocks, 192 wide, 224 px)",
    "width": "width (6 blocks, 224 px)",
}
LATENCY_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
MEMORY_TICKS = (2, 5, 10, 20, 50, 100, 200, 500)

# Writing 5 sets the highest resident size back to the present one.
MEMORY_PROBE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

def kilobytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = kilobytes("VmRSS:")
interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
interpreter.allocate_tensors()
(taken,) = interpreter.get_input_details()
for _ in range(3):
    interpreter.set_tensor(taken["index"], np.zeros(taken["shape"], taken["dtype"]))
    interpreter.invoke()
print(1024 * (kilobytes("VmHWM:") - before))
"""


@dataclasses.dataclass(frozen=True, order=True)
class Sizes:
    """What a model's latency and memory depend on.

    Attributes:
        tokens: Patches and the class token.
        depth: Number of blocks.
        width: Width of a token.
    """

    tokens: int
    depth: int
    width: int


@dataclasses.dataclass(frozen=True)
class Point:
    """One model of one recipe, measured.

    Attributes:
        sizes: Sizes of the model.
        recipe: Name of the recipe.
        round_medians_ms: Median milliseconds of one image in each round.
        memory_bytes: Peak memory in bytes.
    """

    sizes: Sizes
    recipe: str
    round_medians_ms: list[float]
    memory_bytes: int

    @property
    def latency_ms(self) -> Figure:
        """Median, lowest and highest round."""
        return Figure.of(self.round_medians_ms)

    @property
    def memory_mb(self) -> float:
        """Peak memory in units of a million bytes."""
        return self.memory_bytes / 1e6


def main() -> None:
    options = parse_options()
    print("\n\n".join(machine().values()), flush=True)
    series = {
        "tokens": [model_config(image_size=size) for size in IMAGE_SIZES],
        "depth": [model_config(depth=depth) for depth in DEPTHS],
        "width": [model_config(depth=6, width=width) for width in WIDTHS],
    }
    points = measured(list({one for row in series.values() for one in row}), options)
    print(f"\nBatch 1, {count(options.threads, 'thread')}\n\n{table(points)}")
    axes = {axis: {sizes_of(one) for one in row} for axis, row in series.items()}
    with whole_file(options.output) as partial:
        draw(points, axes, options).savefig(partial, format="png", dpi=150)
    if options.json:
        figures = [dataclasses.asdict(point) for point in points]
        write_json(
            options.json,
            machine() | {"threads": options.threads, "points": figures},
        )


def parse_options() -> argparse.Namespace:
    """The command line; the recipes are written `one,two`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--recipes",
        type=lambda text: text.split(","),
        default=["float32", "dynamic_int8"],
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10, help="calls a round")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="PNG")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.recipes) - QUANTIZATION_RECIPES.keys():
        parser.error(
            f"--recipes takes {','.join(QUANTIZATION_RECIPES)}. Received: {unknown}"
        )
    return options


def model_config(
    image_size: int = 224, depth: int = 12, width: int = 192
) -> keras_vit.ViTConfig:
    """Ti/16 with another image size in pixels, depth or width."""
    return keras_vit.ViTConfig.from_variant(
        "Ti/16",
        image_size=image_size,
        num_classes=1000,
        depth=depth,
        width=width,
        mlp_dim=4 * width,
        num_heads=width // HEAD_WIDTH,
    )


def sizes_of(config: keras_vit.ViTConfig) -> Sizes:
    tokens = config.num_patches + config.num_prefix_tokens
    return Sizes(tokens, config.depth, config.width)


def measured(
    configs: list[keras_vit.ViTConfig], options: argparse.Namespace
) -> list[Point]:
    """Every model with every recipe, the smallest first."""
    runs, memory = {}, {}
    ordered = sorted(configs, key=sizes_of)
    for config in tqdm(ordered, desc="Exporting", leave=False, disable=None):
        model = peers.reference_model(config)
        images = peers.smooth_images(16, config.image_size[0])
        for recipe in options.recipes:
            content, _ = export(model, recipe, peers.labelled(images))
            candidate = peers.tflite_candidate(recipe, content)
            pixels = images[:1].astype("float32")
            runs |= {
                (sizes_of(config), recipe): run
                for run in started([candidate], options.threads, pixels).values()
            }
            memory[sizes_of(config), recipe] = peak_memory(content, options.threads)
    medians = round_medians(runs, options.rounds, options.calls)
    return [Point(*key, medians[key], memory[key]) for key in runs]


def peak_memory(content: bytes, threads: int) -> int:
    """Bytes that loading and running a file adds to a process at most."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        path.write_bytes(content)
        command = [sys.executable, "-c", MEMORY_PROBE, path, str(threads)]
        return int(subprocess.check_output(command, stderr=subprocess.DEVNULL))


def table(points: list[Point]) -> str:
    """All points as a table in Markdown."""
    lines = [
        "| tokens | depth | width | recipe | ms an image | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        sizes = dataclasses.astuple(point.sizes)
        cells = (*sizes, point.recipe, point.latency_ms, f"{point.memory_mb:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def draw(
    points: list[Point], axes: dict[str, set[Sizes]], options: argparse.Namespace
) -> Canvas:
    """Latency above, memory below; on these axes a power is a straight line."""
    canvas = Canvas(figsize=(11, 6.5), layout="constrained")
    plots = canvas.subplots(2, len(axes), sharex="col", sharey="row")
    for plot in plots.flat:
        plot.set(xscale="log", yscale="log")
        plot.grid(alpha=0.3)
    for (above, below), (axis, members) in zip(plots.T, axes.items(), strict=True):
        for recipe in options.recipes:
            line = [it for it in points if it.recipe == recipe and it.sizes in members]
            sizes = [getattr(point.sizes, axis) for point in line]
            draw_latency(above, sizes, [point.latency_ms for point in line], recipe)
            below.plot(sizes, [point.memory_mb for point in line], "o-", label=recipe)
        below.set_xticks(sizes, sizes)
        below.set_xlabel(AXIS_LABELS[axis])
    for row, ticks in zip(plots, (LATENCY_TICKS, MEMORY_TICKS), strict=True):
        row[0].set_yticks(ticks, ticks)
        draw_powers(row)
    for plot in plots.flat:
        plot.minorticks_off()
    plots[0, 0].set_ylabel(f"ms an image, {count(options.threads, 'thread')}")
    plots[1, 0].set_ylabel("peak memory, MB")
    legend = plots[0, 0].get_legend_handles_labels()
    canvas.legend(*legend, loc="outside upper center", ncols=len(legend[0]))
    return canvas


def draw_latency(
    plot: Axes, sizes: list[int], figures: list[Figure], recipe: str
) -> None:
    """Medians as a line, lowest and highest round as bars."""
    below = [figure.median - figure.low for figure in figures]
    above = [figure.high - figure.median for figure in figures]
    medians = [figure.median for figure in figures]
    plot.errorbar(sizes, medians, (below, above), fmt="o-", capsize=3, label=recipe)


def draw_powers(row: Sequence[Axes]) -> None:
    """Grey lines of growth with the size and with its square, from the first point."""
    low = min(min(line.get_ydata()) for plot in row for line in plot.lines)
    high = max(max(line.get_ydata()) for plot in row for line in plot.lines)
    for plot in row:
        sizes, values = (np.array(it) for it in plot.lines[0].get_data())
        for power, style in ((1, "--"), (2, ":")):
            guide = values[0] * (sizes / sizes[0]) ** power
            label = {1: "in proportion", 2: "as the square"}[power]
            plot.plot(sizes, guide, style, color="grey", linewidth=1, label=label)
        plot.set_ylim(low / 1.3, high * 1.3)


if __name__ == "__main__":
    main()
