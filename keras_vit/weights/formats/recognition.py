"""Of which format and which model a file's names are, whatever stands before them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_vit.weights.formats.format import Format
from keras_vit.weights.formats.google import GOOGLE
from keras_vit.weights.formats.heads import is_of_head, read_head
from keras_vit.weights.formats.hugging_face import HUGGING_FACE
from keras_vit.weights.formats.layouts import rename
from keras_vit.weights.formats.timm import TIMM
from keras_vit.weights.formats.torchvision import TORCHVISION
from keras_vit.weights.tensors import name_first

FORMATS = (GOOGLE, TIMM, HUGGING_FACE, TORCHVISION)
# What torch.compile, FSDP and activation checkpointing put before the names of all that
# they wrap, which may be any block.
_WRAPPER = r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
# What a model that scales its pixels itself holds.
_PIXELS = r"(.*[._])?(mean|std)"
# Of training, around models of every format.
_IGNORED = {
    r"n_averaged": "the moving average's count",
    r"(criterion|loss|loss_fn|loss_fct)\..*": "of the loss",
    r"decoder(_\w+)?(\..*)?": "a decoder: no classifier reads it",
}


class Recognized(NamedTuple):
    """One model of a file.

    Attributes:
        form: Its format.
        tensors: Those that it needs, canonical, the head's under the format's names.
        names: All names of the file, without what stands before them.
        pixels: Means and standard deviations of pixels that stand beside the model.
        unread: What only a new head makes superfluous: a head that no model here has,
            or parts beside the model; `""` if nothing.
        remarks: What was left out, and what a user should know, a line each.
    """

    form: Format
    tensors: dict[str, np.ndarray]
    names: tuple[str, ...]
    pixels: dict[str, np.ndarray]
    unread: str
    remarks: tuple[str, ...]


def recognize(tensors: Mapping[str, np.ndarray], prefix: str | None) -> Recognized:
    """Finds the model by the names that every file of its format has.

    Args:
        tensors: As the file has them.
        prefix: What the names of the one that is wanted begin with, where there are
            several; needed there.

    Raises:
        ValueError: If there is none or several, if two tensors have one name, if one
            holds no floats, or if only LoRA's adapters are there.
    """
    tensors, remarks = _unwrap(dict(sorted(tensors.items())))
    models = _models(tensors)
    form, chosen = _choose(models, tensors, prefix)
    others = [_root(chosen, other) for _, other in models if other != chosen]
    own = [name for name in tensors if not _is_of_another(name, chosen, others)]
    bare = {name: _bare(name, chosen, form.separator) for name in own}
    reasons = {name: _reason_to_ignore(form, name, bare[name]) for name in own}
    remarks += _remarks_on_names(form, chosen)
    remarks += [f"{it} left out: {why}" for it, why in reasons.items() if why]
    remarks += [f"another model left out: {other!r}" for other in others]
    kept = [name for name in own if not reasons[name]]
    outside = [name for name in kept if not name.startswith(chosen)]
    pixels = {
        name: tensors[name]
        for name in outside
        if re.fullmatch(_PIXELS, name) and tensors[name].size in (1, 3)
    }
    beside = [
        name
        for name in outside
        if name not in pixels and not is_of_head(form, bare[name])
    ]
    needed = [name for name in kept if name not in (*pixels, *beside)]
    _check_names_differ(needed, bare)
    head = read_head(
        form, form.canonical({bare[name]: tensors[name] for name in needed})
    )
    for name in needed:
        if not (head.unread and is_of_head(form, bare[name])):
            _check_numbers(name, tensors[name])
    return Recognized(
        form,
        dict(head.tensors),
        tuple(bare.values()),
        pixels,
        "; ".join(filter(None, (head.unread, beside and name_first(beside)))),
        (*remarks, *head.remarks),
    )


def _unwrap(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str]]:
    if adapters := sorted(name for name in tensors if ".lora_" in name):
        raise ValueError(
            f"it has adapters of LoRA ({name_first(adapters[:2])}): merge them into the model "
            "(merge_and_unload() of peft) and save that."
        )
    wrappers = {it for name in tensors for it in re.findall(_WRAPPER, name)}
    remarks = [f"names are read without {f'{it}.'!r}" for it in sorted(wrappers)]
    return rename(tensors, {_WRAPPER: ""}), remarks


def _models(names: Collection[str]) -> list[tuple[Format, str]]:
    """Each model's format, and what stands before its names."""
    found = []
    for form in FORMATS:
        anchor, separator = form.anchor, form.separator
        for name in names:
            prefix = name.removesuffix(anchor)
            if (
                name.endswith(anchor)
                and (not prefix or prefix.endswith(separator))
                and not _reason_to_ignore(form, name, name)
                and form.recognises(
                    {it[len(prefix) :] for it in names if it.startswith(prefix)}
                )
            ):
                found.append((form, prefix))
    return found


def _choose(
    models: Sequence[tuple[Format, str]], names: Collection[str], prefix: str | None
) -> tuple[Format, str]:
    if not models:
        raise ValueError(
            "it holds no Vision Transformer of a known format "
            f"({', '.join(form.name for form in FORMATS)}). Its first tensors: "
            f"{name_first(sorted(names)[:5])}"
        )
    if prefix is None and len(models) == 1:
        return models[0]
    wanted = re.sub(_WRAPPER, "", prefix or "")
    exact = [it for it in models if prefix is not None and it[1] == wanted]
    starts = tuple(wanted.removesuffix(it) + it for it in ("/", "."))
    begun = [it for it in models if prefix and it[1].startswith(starts)]
    if len(found := exact or begun) == 1:
        return found[0]
    listed = ", ".join(repr(it) for _, it in models)
    raise ValueError(
        f"it holds models whose names begin with {listed}; prefix must say which. "
        f"Received: {prefix!r}"
    )


def _root(chosen: str, other: str) -> str:
    """What all names of another model begin with, those of its head too."""
    parts, root = re.findall(r"[^./]*[./]", other), ""
    for part in parts:
        root += part
        if not chosen.startswith(root):
            break
    return root


def _is_of_another(name: str, chosen: str, others: Sequence[str]) -> bool:
    """Whether a name begins as another model's do, and not as the chosen one's."""
    return any(
        name.startswith(root)
        and not (name.startswith(chosen) and chosen.startswith(root))
        for root in others
    )


def _remarks_on_names(form: Format, chosen: str) -> list[str]:
    """What stands before names, but for what every file of the format may have."""
    shown = chosen
    for own in form.prefixes:
        if shown == own or shown.endswith(form.separator + own):
            shown = shown.removesuffix(own)
            break
    return [f"names are read without {shown!r}"] if shown else []


def _check_names_differ(names: Sequence[str], bare: Mapping[str, str]) -> None:
    origins: dict[str, str] = {}
    for name in names:
        first = origins.setdefault(bare[name], name)
        if first != name:
            raise ValueError(f"{first!r} and {name!r} are names of one tensor.")


def _bare(name: str, prefix: str, separator: str) -> str:
    """The name without those parts of the prefix that it begins with."""
    for part in prefix.split(separator)[:-1]:
        if not name.startswith(part + separator):
            break
        name = name.removeprefix(part + separator)
    return name


def _reason_to_ignore(form: Format, name: str, bare: str) -> str | None:
    """Why this tensor is not needed, or `None` if it is."""
    for pattern, reason in (form.ignored | _IGNORED).items():
        if any(re.fullmatch(pattern, it) for it in (bare, name)):
            return reason
    return None


def _check_numbers(name: str, tensor: np.ndarray) -> None:
    # NumPy doesn't count bfloat16 among its own floats.
    if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
        raise ValueError(
            f"tensor {name!r} of it must hold floats. Received: {tensor.dtype} "
            "(quantized weights are not read)"
        )
