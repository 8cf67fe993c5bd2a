"""Files of weights that are not read here: what they are, and the way from them."""

import pathlib
import shlex
from collections.abc import Sequence

# What one line of PyTorch makes of a file's own object `t`: tensors by name.
_LOAD = (
    "t = {{k: v for f in sys.argv[2:] for k, v in {}.items()}}; "
    # The dictionary with the most tensors is the model; of equals, the average.
    "d = {{'': t, **{{k: v for k, v in t.items() if isinstance(v, dict)}}}}; "
    "k = max(d, key=lambda k: (sum(map(torch.is_tensor, d[k].values())), "
    "'ema' in str(k) or k == 'teacher')); print(repr(k), 'of', list(d)); "
    # Clones, since safetensors refuses tensors that share memory.
    "save_file({{n: v.clone().contiguous() for n, v in d[k].items() "
    "if torch.is_tensor(v)}}, sys.argv[1])"
)
_PICKLE = (
    "torch.serialization.add_safe_globals([argparse.Namespace, pathlib.PosixPath]); "
) + _LOAD.format("torch.load(f, map_location='cpu', weights_only=True)")
_SCRIPT = _LOAD.format("torch.jit.load(f, map_location='cpu').state_dict()")
_PROGRAM = _LOAD.format("torch.export.load(f).state_dict")

_PACKED = "packed: unpack it first"
# By first bytes, of which none are those of a safetensors file.
_STARTS = {
    b"GGUF": "a GGUF file, whose weights are quantized or of other models",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (.h5 of Keras or TensorFlow)",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: git lfs pull",
    b"\x93NUMPY": "one array (.npy), not a model's",
    b"\x1f\x8b": _PACKED,
    b"BZh": _PACKED,
    b"\xfd7zXZ": _PACKED,
    b"7z\xbc\xaf": _PACKED,
    b"(\xb5/\xfd": _PACKED,
    b"<": "a web page or XML: what was asked for was not downloaded",
    b"{": "JSON: a server's refusal, or what lies beside a model",
}
_SUFFIXES = {
    ".onnx": "an ONNX model",
    ".msgpack": "Flax' msgpack",
    ".pb": "a TensorFlow graph",
    ".index": "a TensorFlow checkpoint",
    ".data-": "a TensorFlow checkpoint",
    ".gguf": _STARTS[b"GGUF"],
    ".mlmodel": "a Core ML model",
}
_NOT_READ = "Only .npz and safetensors are read"
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".tar", ".pkl")
# Of Hugging Face's Trainer, beside the model.
_STATES = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")


def refusal(path: pathlib.Path, start: bytes) -> str | None:
    """Why a file that is neither safetensors nor ZIP is not read, if its kind is known.

    Args:
        path: Of the file.
        start: Its first bytes, 24 at least where it has so many.
    """
    if not start:
        return f"'{path}' is neither .npz nor safetensors: it is empty."
    found = [what for it, what in _STARTS.items() if start.lstrip().startswith(it)]
    suffix = path.suffix.lower()
    found += [what for it, what in _SUFFIXES.items() if suffix.startswith(it)]
    if start[4:8] == b"TFL3":
        found.append("a .tflite, which holds no weights to train")
    if found:
        return f"'{path}' is {found[0]}. {_NOT_READ}."
    return pickle_refusal(path) if start[:1] == b"\x80" else None


def zip_refusal(path: pathlib.Path, names: Sequence[str]) -> str | None:
    """Why a ZIP archive with these members is not read, or `None` if NumPy made it."""
    if any(name.endswith("data.pkl") for name in names):
        if any("/code/" in name for name in names):
            return _way_to_convert(path, "a TorchScript program", _SCRIPT)
        return pickle_refusal(path)
    if any(name.endswith("/archive_format") for name in names):
        return _way_to_convert(path, "a program of torch.export", _PROGRAM)
    if "model.weights.h5" in names:
        return (
            f"'{path}' is a Keras model: keras-vit train --from takes what build_vit "
            f"made. {_NOT_READ} as published weights."
        )
    if names and not any(name.endswith(".npy") for name in names):
        return f"'{path}' is a ZIP archive without arrays. {_NOT_READ}."
    return None


def folder_refusal(folder: pathlib.Path) -> str:
    """What a folder without safetensors holds instead, or `""`."""
    if (folder / "saved_model.pb").is_file():
        return f"It is a SavedModel of TensorFlow. {_NOT_READ}."
    if (folder / "_METADATA").is_file():
        return f"It is a checkpoint of Flax' Orbax. {_NOT_READ}."
    files = sorted(it for it in folder.iterdir() if it.is_file())
    own = [it for it in files if it.suffix in (".npz", ".safetensors")]
    if own:
        return f"Give the file: '{own[0]}'."
    pickles = [
        it for it in files if it.suffix in _PICKLES and not it.name.startswith(_STATES)
    ]
    if shards := [it for it in pickles if it.name.startswith("pytorch_model")]:
        return pickle_refusal(*shards)
    if pickles:
        return pickle_refusal(pickles[0])
    for file in (it for it in files if not it.name.startswith(_STATES)):
        with open(file, "rb") as content:
            start = content.read(24)
        if file.suffix != ".json" and (why := refusal(file, start)):
            return why
    return ""


def pickle_refusal(*paths: pathlib.Path) -> str:
    """The line of PyTorch that makes a safetensors file of pickles, or of their parts."""
    return (
        f"{_way_to_convert(paths[0], 'a pickle', _PICKLE, paths[1:])} PyTorch refuses there "
        "what is more than weights, such as a whole model: where that was made, "
        "torch.save(model.state_dict(), FILE) first."
    )


def _way_to_convert(
    path: pathlib.Path, what: str, line: str, more: Sequence[pathlib.Path] = ()
) -> str:
    stem = path.name.split(".")[0]
    # As Hugging Face calls the two.
    stem = "model" if stem.startswith("pytorch_model") else stem
    output = path.with_name(f"{stem}.safetensors")
    files = " ".join(shlex.quote(str(it)) for it in (output, path, *more))
    return (
        f"'{path}' is {what}, which can run code when it is read. Where you trust it: "
        'python -c "import argparse, pathlib, sys, torch; from safetensors.torch import '
        f'save_file; {line}" {files}'
    )
