"""Options of `demo`, `evaluate`, `export`, `benchmark` and `inspect`. Standard library only."""

from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES

from keras_vit_cli.options.shared import (
    add_dataset,
    add_ends,
    add_json,
    add_model,
    add_path,
    add_seed_and_json,
    add_split,
)

DEMO_EPOCHS = 80


def add_demo(commands) -> None:
    """Bundled digits -> a model and its files."""
    demo = commands.add_parser(
        "demo", help="train, export, check and report on the bundled digits"
    )
    add_path(demo, "--output", "RUN", "new folder (default: the next free runs/demo-N)")
    demo.add_argument(
        "--epochs", type=int, default=DEMO_EPOCHS, help="default: %(default)s"
    )
    add_seed_and_json(demo)


def add_evaluate(commands) -> None:
    """A model and images -> its top-1."""
    evaluate = commands.add_parser("evaluate", help="top-1 of a model on test images")
    add_model(evaluate, "a .keras or a .tflite")
    add_dataset(evaluate, required=True)
    add_ends(evaluate)
    add_split(evaluate, "test; of a folder that the model was not trained on, all")
    add_path(
        evaluate,
        "--confusion",
        "PNG",
        "where the confusion picture goes (default: beside the model)",
    )
    add_json(evaluate)


def add_speedup(commands) -> None:
    """A model -> the fastest file that loses little."""
    speedup = commands.add_parser(
        "speedup",
        help="find the fastest .tflite of a model within a budget of top-1: smaller "
        "images, larger patches, pooled and pruned tokens",
    )
    add_model(speedup, "a .keras")
    add_dataset(speedup, required=True)
    add_path(
        speedup,
        "--output",
        "RUN",
        "new folder: trials, front.png, and what was taken as model.tflite with its "
        "report and model.keras",
        required=True,
    )
    speedup.add_argument(
        "--max-drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="percentage points of top-1 on validation images that may be lost; if "
        "nothing keeps to it, no file is written, exit status 3 (default: %(default)s)",
    )
    speedup.add_argument(
        "--target",
        metavar="SPEED",
        help="how fast it must be: 2x, beside the model as it came, or milliseconds; "
        "then the most accurate that is (default: as fast as can be)",
    )
    speedup.add_argument(
        "--train",
        action="store_true",
        help="train what loses too much as it is, with the model itself as the teacher",
    )
    speedup.add_argument(
        "--epochs", type=int, help="of each training (default: the recipe's, 5)"
    )
    speedup.add_argument(
        "--continue",
        action="store_true",
        dest="go_on",
        help="go on with the search in that folder; what was tried counts",
    )
    add_seed_and_json(speedup)


def add_export(commands) -> None:
    """A model -> a `.tflite`."""
    export = commands.add_parser("export", help="write a checked .tflite")
    add_model(export, "a .keras")
    export.add_argument(
        "--recipe",
        default="dynamic_int8",
        help=f"{', '.join(QUANTIZATION_RECIPES)}, or auto for the fastest that keeps to "
        "--max-drop (default: dynamic_int8)",
    )
    add_path(
        export,
        "--output",
        "TFLITE",
        "file to write; its report goes beside it, ending in .tflite.html and "
        ".tflite.json",
        required=True,
    )
    add_dataset(export, required=False)
    add_ends(export)
    add_split(export, "test")
    export.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="keep the layers that suffer most in higher precision until top-1 on "
        "validation images falls by no more percentage points; if it can't be held, "
        "write nothing and exit with 3 (default with auto: 0.5)",
    )
    export.add_argument(
        "--rewrites",
        default="auto",
        help="auto (default), or required to refuse a model that can't be rewritten",
    )
    export.add_argument(
        "--compat",
        metavar="VERSION",
        help="2.14: a file that tflite-runtime 2.14 (2023) computes rightly too",
    )
    export.add_argument(
        "--rgb",
        action="store_true",
        help="let a model of one channel take colour images, as MediaPipe gives them",
    )
    add_json(export)


def add_inspect(commands) -> None:
    """A `.tflite` -> what it holds."""
    inspect = commands.add_parser(
        "inspect", help="what a .tflite takes, gives and was measured to do"
    )
    add_model(inspect, "a .tflite")
    inspect.add_argument(
        "--self-test",
        action="store_true",
        help="run the file's self-test on every accelerator of this machine; exit with "
        "3 if it fails, or there is none",
    )
    add_json(inspect)


def add_benchmark(commands) -> None:
    """A model -> all its files, side by side."""
    benchmark = commands.add_parser(
        "benchmark", help="every recipe of a model, side by side"
    )
    add_model(benchmark, "a .keras")
    add_dataset(benchmark, required=True)
    add_ends(benchmark)
    add_split(benchmark, "test")
    add_path(benchmark, "--html", "FILE", "write a page with plots there")
    benchmark.add_argument(
        "--accelerator",
        default="auto",
        help="where the files are tried, besides: cpu, gpu (a mistake where there is "
        "none), or auto for all that are here (default)",
    )
    add_json(benchmark)
