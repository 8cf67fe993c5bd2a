"""The command `inspect`: what a `.tflite` takes, gives, holds and was measured to do."""

import argparse
from collections.abc import Iterator
from typing import Any

from keras_vit_device.classifier import Classifier
from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say
from keras_vit_export.gpu.reach import reach

_FAILED = 3  # as of a budget that is not kept


def run(options: argparse.Namespace) -> int:
    """Prints what stands in a `.tflite`."""
    if options.model.suffix != ".tflite":
        raise ValueError(f"A .tflite file is needed. Received: '{options.model}'")
    check_writable(options.json, read=[options.model])
    classifier = Classifier(options.model, self_test=False)
    facts = _facts(classifier)
    if options.self_test:
        facts["accelerators"] = _places(classifier)
    say(f"{options.model}: {facts['size_bytes'] / 1e6:.2f} MB, {_origin(facts)}")
    for name, text in _lines(facts):
        say(f"{name:>10}  {text}")
    write_json(options.json, facts)
    return _FAILED if options.self_test and not _proven(facts) else 0


def _places(classifier: Classifier) -> dict[str, Any]:
    """What each accelerator makes of the self-test."""
    found = reach(classifier, classifier.test_image[None])
    return {name: it.as_dict() for name, it in found.items()}


def _proven(facts: dict[str, Any]) -> bool:
    """Whether the self-test is there and passed wherever the file ran."""
    results = [it["self_test"] for it in facts["accelerators"].values()]
    return all(it in ("passed", "") for it in results)


def _facts(classifier: Classifier) -> dict[str, Any]:
    taken, given = classifier.ends
    contract = classifier.contract
    ours = "preprocessing" in contract
    rule = classifier.preprocessing if ours else None
    return {
        "size_bytes": classifier.size_bytes,
        "input": _end(taken, "pixels in 0..255" if ours else "of unknown meaning"),
        "output": _end(given, "a probability for each class" if ours else "of classes"),
        "preprocessing": rule,
        "class_names": list(classifier.class_names),
        "self_test": classifier.contract.get("self_test"),
        "operations": _operations(classifier),
    } | {
        name: contract[name]
        for name in ("recipe", "top1", "agreement", "images", "sha256")
        if name in contract
    }


def _operations(classifier: Classifier) -> dict[str, dict[str, int]]:
    try:
        return classifier.operations
    except ImportError as error:  # tflite_runtime reads no flatbuffers
        raise RuntimeError("pip install ai-edge-litert, to read operations.") from error


def _end(tensor: dict, meaning: str) -> dict[str, Any]:
    scale, zero_point = tensor["quantization"]
    return {
        "shape": [int(side) for side in tensor["shape"]],
        "dtype": tensor["dtype"].__name__,
        "meaning": f"{meaning}: {scale:.6g} * (q - {zero_point})" if scale else meaning,
    }


def _origin(facts: dict[str, Any]) -> str:
    """Where it comes from and what was measured when it was made."""
    if "recipe" not in facts:
        return "of another exporter: it names no recipe"
    if None in (facts.get(name) for name in ("top1", "agreement", "images")):
        return f"recipe {facts['recipe']}, accuracy was not measured"
    return (
        f"recipe {facts['recipe']}, top-1 {facts['top1']:.2%} and agreement "
        f"{facts['agreement']:.2%} on {facts['images']} images"
    )


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for end in ("input", "output"):
        shape = " x ".join(map(str, facts[end]["shape"]))
        yield end, f"{shape} {facts[end]['dtype']}, {facts[end]['meaning']}"
    yield "image", _rule(facts["preprocessing"])
    yield from _self_test(facts)
    names = facts["class_names"]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    yield "classes", ", ".join(names[:10]) + more
    operations = facts["operations"]
    yield "operations", str(sum(sum(it.values()) for it in operations.values()))
    for kind, by_precision in operations.items():
        counts = [f"{count} {precision}" for precision, count in by_precision.items()]
        parts = counts if len(counts) > 1 else by_precision
        yield str(sum(by_precision.values())), f"{kind:<16} {', '.join(parts)}"


def _self_test(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if facts["self_test"] is None:
        said = "none: nothing in the file shows whether an accelerator answers rightly"
        yield "self-test", said
    elif "accelerators" not in facts:
        yield "self-test", "carried; --self-test runs it"
    for name, it in facts.get("accelerators", {}).items():
        if it["latency_ms"] is None:
            yield name.upper(), f"{it['runs']}: {it['reason']}"
        else:
            how = f"{it['runs']}, {it['latency_ms']:.2f} ms an image"
            more = f"; {it['reason']}" if it["reason"] else ""
            yield name.upper(), f"{how}, self-test {it['self_test']}{more}"


def _rule(rule: dict[str, Any] | None) -> str:
    """How an image is fitted."""
    if rule is None:
        return "stretch, bilinear: the file does not say how it is fitted"
    part = (
        "" if rule["crop"] == 1 else f" of the middle {rule['crop']:.1%} of each side"
    )
    return f"{rule['resize']}{part}, {rule['interpolation']}"
