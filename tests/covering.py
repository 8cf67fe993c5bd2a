"""Few configurations that have every pair of options between them, and their layout."""

import itertools

from keras_vit.config import POOLS

OPTIONS = {
    "pool": [{"pool": name} for name in POOLS],
    "prefix": [
        {"class_token": True},
        {"class_token": False},
        {"class_token": True, "distillation_token": True},
        {"class_token": True, "num_registers": 2},
    ],
    "positions": [
        {"positions": "learned"},
        {"positions": "learned", "positions_cover_prefix": False},
        {"positions": "sinusoidal_1d"},
        {"positions": "sincos_2d"},
    ],
    "activation": [
        {"activation": "gelu"},
        {"activation": "gelu_tanh"},
        {"activation": "relu"},
        {"activation": "swiglu"},
    ],
    "stem": [{"stem": ()}, {"stem": (4,)}, {"stem": (3, 5)}],
    "scaling": [{"mean": 0.0, "std": 0.25}, {"mean": (0.4, 0.5, 0.6), "std": 0.2}],
    "qk_norm": [{"qk_norm": False}, {"qk_norm": True}],
    "layer_scale": [{"layer_scale": None}, {"layer_scale": 0.5}],
    "norm": [{"norm_after_pool": False}, {"norm_after_pool": True}],
    "reduction": [{}, {"reduce_tokens": ((0, "prune", 0.5),)}],
    "head": [
        {"head_hidden": ()},
        {"head_hidden": (5,)},
        {"head_hidden": (5,), "head_activation": "tanh"},
    ],
    "output": [{"head_output": "logits"}, {"head_output": "softmax"}],
}


def allowed(fields):
    """Whether ViTConfig takes the fields together."""
    if fields.get("class_token") is False and "token" in fields.get("pool", ""):
        return False
    if fields.get("pool") == "token_and_mean" and fields.get("norm_after_pool"):
        return False
    if fields.get("distillation_token") and fields.get("pool", "token") != "token":
        return False
    return not (
        fields.get("class_token") is False
        and fields.get("positions_cover_prefix") is not None
    )


def _merge(chosen):
    fields = {}
    for row, index in chosen.items():
        fields |= OPTIONS[row][index]
    return fields


def covering_set():
    """Configurations in which every two options that may meet do meet, greedily."""
    rows = list(OPTIONS)
    missing = {
        frozenset({(a, i), (b, j)})
        for a, b in itertools.combinations(rows, 2)
        for i in range(len(OPTIONS[a]))
        for j in range(len(OPTIONS[b]))
        if allowed(_merge({a: i, b: j}))
    }
    configurations = []
    while missing:
        chosen = dict(min(map(sorted, missing)))
        for row in rows:
            if row in chosen:
                continue
            fits = [
                index
                for index in range(len(OPTIONS[row]))
                if allowed(_merge(chosen | {row: index}))
            ]
            chosen[row] = max(
                fits, key=lambda index: _news(chosen, row, index, missing)
            )
        pairs = itertools.combinations(chosen.items(), 2)
        missing -= {frozenset(pair) for pair in pairs}
        configurations.append(_merge(chosen))
    return configurations


def _news(chosen, row, index, missing):
    return sum(frozenset({(row, index), other}) in missing for other in chosen.items())


COVERING = covering_set()


def check_layout(content):
    """Nothing in a `.tflite` leaves a GPU to guess how a shape is meant."""
    from keras_vit_device.tflite.operations import read_operations
    from keras_vit_export.gpu.pitfalls import ELEMENTWISE, pitfalls

    assert not pitfalls(content)
    for operation in read_operations(content):
        if operation.kind in ELEMENTWISE:
            ranks = {len(it.shape) for it in operation.operands}
            assert len(ranks) == 1, operation
