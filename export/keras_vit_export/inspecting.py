"""The command `inspect`: what a `.tflite` takes, gives, holds and was measured to do."""

import argparse
from typing import Any

from keras_vit_export.arguments import write_json
from keras_vit_export.runtime import Classifier
from keras_vit_export.terminal import quiet


def inspect(options: argparse.Namespace) -> int:
    """Prints what stands in a `.tflite`."""
    if options.model.suffix != ".tflite":
        raise ValueError(f"A .tflite file is needed. Received: '{options.model}'")
    with quiet():
        classifier = Classifier(options.model)
        facts = _facts(classifier)
    print(f"{options.model}: {facts['size_bytes'] / 1e6:.2f} MB, {_origin(facts)}")
    for end in ("input", "output"):
        shape = " x ".join(map(str, facts[end]["shape"]))
        print(f"{end:>10}  {shape} {facts[end]['dtype']}, {facts[end]['meaning']}")
    rule = facts["preprocessing"]
    print(
        f"{'image':>10}  {rule['resize']}, {rule['interpolation']}, middle "
        f"{rule['crop']:.1%} of each side"
    )
    names = facts["class_names"]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    print(f"{'classes':>10}  {', '.join(names[:10])}{more}")
    print(f"{'operations':>10}  {sum(map(_total, facts['operations'].values()))}")
    for kind, by_precision in facts["operations"].items():
        parts = ", ".join(f"{n} {precision}" for precision, n in by_precision.items())
        print(f"{_total(by_precision):>10}  {kind}: {parts}")
    write_json(options.json, facts)
    return 0


def _total(by_precision: dict[str, int]) -> int:
    return sum(by_precision.values())


def _facts(classifier: Classifier) -> dict[str, Any]:
    taken, given = classifier.ends
    return {
        "size_bytes": classifier.size_bytes,
        "input": _end(taken, "pixels in 0..255"),
        "output": _end(given, "a probability for each class"),
        "preprocessing": classifier.preprocessing,
        "class_names": list(classifier.class_names),
        "operations": classifier.operations,
    } | {
        name: classifier.contract[name]
        for name in ("recipe", "top1", "agreement", "images", "sha256")
        if name in classifier.contract
    }


def _end(tensor: dict, meaning: str) -> dict[str, Any]:
    scale, zero_point = tensor["quantization"]
    return {
        "shape": [int(side) for side in tensor["shape"]],
        "dtype": tensor["dtype"].__name__,
        "meaning": f"{scale:.6g} (q - {zero_point}): {meaning}" if scale else meaning,
    }


def _origin(facts: dict[str, Any]) -> str:
    """Where it comes from and what was measured when it was made."""
    if "recipe" not in facts:
        return "of another exporter: it says no recipe"
    measured = "accuracy was not measured"
    if facts.get("top1") is not None:
        measured = (
            f"top-1 {facts['top1']:.2%} and agreement {facts['agreement']:.2%} on "
            f"{facts['images']} images"
        )
    return f"recipe {facts['recipe']}, {measured}"
