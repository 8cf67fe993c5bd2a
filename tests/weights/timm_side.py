"""timm's and torchvision's side of the parity tests, in a process of its own: PyTorch and TensorFlow
don't always live in one.

    python timm_side.py write FOLDER < SPECIFICATIONS   models, images and outputs
    python timm_side.py torchvision FOLDER < ARGUMENTS  the same of torchvision
    python timm_side.py pickles FOLDER                  what trainers save of a model
    python timm_side.py read FOLDER                     outputs of the models in it
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.vision_transformer import interpolate_embeddings


def randomized(name, **arguments):
    """A model whose norms, scales and biases are random too."""
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    randomize(model)
    return model


def randomize(model):
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim < 2 or "token" in key or "embed" in key:
                weight.copy_(torch.randn_like(weight) * 0.3)
            if "norm" in key and key.endswith("weight"):
                weight.add_(1.0)


def scaled(pixels):
    """As mean and std of 0.5 make them."""
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(127.5) - 1)


def output_of(model, height, width):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, height, width, 3)).astype("float32")
    with torch.no_grad():
        return pixels, model(scaled(pixels)).numpy()


def write(folder):
    """Each specification: name of timm's model, arguments, and a size to resize to."""
    for number, (name, arguments, size) in enumerate(json.load(sys.stdin)):
        place = folder / str(number)
        place.mkdir()
        model = randomized(name, **arguments)
        save_file(model.state_dict(), place / "model.safetensors")
        notes = {
            "architecture": "of this test",
            "num_classes": model.num_classes,
            "global_pool": model.global_pool,
            "model_args": {"act_layer": arguments.get("act_layer")},
            "pretrained_cfg": {
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "crop_mode": "squash",
            },
        }
        (place / "config.json").write_text(json.dumps(notes))
        height, width = model.patch_embed.img_size
        if size:
            height, width = size
            state = model.state_dict()
            side = model.patch_embed.patch_size[0]
            state["pos_embed"] = timm.layers.resample_abs_pos_embed(
                state["pos_embed"], (height // side, width // side)
            )
            model = randomized(name, **arguments | {"img_size": size})
            model.load_state_dict(state)
        pixels, output = output_of(model, height, width)
        np.savez(place / "sides.npz", pixels=pixels, output=output)


def write_torchvision(folder):
    """Each: arguments of its VisionTransformer, and a size to resize to."""
    for number, (arguments, side) in enumerate(json.load(sys.stdin)):
        place = folder / str(number)
        place.mkdir()
        torch.manual_seed(0)
        model = torchvision.models.VisionTransformer(**arguments).eval()
        randomize(model)
        torch.nn.init.normal_(model.heads.head.weight, std=0.1)
        state = model.state_dict()
        save_file(state, place / "model.safetensors")
        if side:
            state = interpolate_embeddings(side, arguments["patch_size"], state)
            arguments["image_size"] = side
            model = torchvision.models.VisionTransformer(**arguments).eval()
            model.load_state_dict(state)
        side = arguments["image_size"]
        pixels, output = output_of(model, side, side)
        np.savez(place / "sides.npz", pixels=pixels, output=output)


def pickles(folder):
    """One model as PyTorch's trainers save it, a head of ones in what is to be taken."""
    model = randomized("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    rest = {"optimizer": optimizer.state_dict(), "epoch": 7}
    rest |= {"args": argparse.Namespace(out=pathlib.Path("out"))}
    other = {name: it + 0 for name, it in model.state_dict().items()}
    torch.nn.init.ones_(model.head.weight)
    state = model.state_dict()
    state["norm.bias"] = state["norm.weight"]  # of one memory
    start = {
        prefix: {prefix + name: it for name, it in state.items()}
        for prefix in ("model.", "backbone.", "module.backbone.")
    }
    saved = {
        "raw.pth": state,
        "model.pth": {"model": state},
        "timm.pth.tar": rest | {"state_dict": other, "state_dict_ema": state},
        "tutorial.pt": {"model_state_dict": state, "loss": torch.ones(1), **rest},
        "dino.pth": rest
        | {"student": start["module.backbone."], "teacher": start["backbone."]},
        "lightning.ckpt": {
            "state_dict": start["model."],
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint": {"best": torch.ones(())}},
            "optimizer_states": [rest["optimizer"]],
            "hyper_parameters": {"lr": 0.1},
        },
        "whole.pt": model,
    }
    for name, content in saved.items():
        torch.save(content, folder / name)
    for number, names in enumerate((sorted(state)[::2], sorted(state)[1::2])):
        part = {name: state[name] for name in names}
        torch.save(part, folder / f"pytorch_model-{number}.bin")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    images = torch.zeros(1, 3, 32, 32)
    torch.jit.trace(model.eval(), images).save(folder / "script.pt")
    torch.export.save(torch.export.export(model, (images,)), folder / "program.pt2")


def read(folder):
    for place in sorted(folder.iterdir()):
        model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
        pixels, output = output_of(model, *model.patch_embed.img_size)
        np.savez(folder / f"{place.name}.npz", pixels=pixels, output=output)


def resize(folder):
    """Positions and patches as torch and timm resize them."""
    random = np.random.default_rng(0)
    positions = random.normal(size=(1, 14 * 14, 8)).astype("float32")
    image = torch.from_numpy(positions).reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
    interpolate = torch.nn.functional.interpolate
    found = {"positions": positions}
    for rows, columns in ((9, 5), (20, 23)):
        size = (rows, columns)
        offset = tuple((side + 0.1) / 14 for side in size)
        made = {
            "bicubic_antialias": interpolate(
                image, size=size, mode="bicubic", antialias=True
            ),
            "bicubic": interpolate(image, size=size, mode="bicubic"),
            "bicubic_corners": interpolate(
                image, size=size, mode="bicubic", align_corners=True
            ),
            "dinov2": interpolate(image, scale_factor=offset, mode="bicubic"),
        }
        for mode, resized in made.items():
            assert resized.shape[2:] == size
            flat = resized.permute(0, 2, 3, 1).reshape(1, -1, 8)
            found[f"{mode} {rows} {columns}"] = flat.numpy()
    kernel = random.normal(size=(16, 16, 3, 8)).astype("float32")
    found["kernel"] = kernel
    found["kernel of 20"] = (
        timm.layers.resample_patch_embed(
            torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
            [20, 20],
            interpolation="bilinear",
            antialias=False,
        )
        .numpy()
        .transpose(2, 3, 1, 0)
    )
    np.savez(folder / "resized.npz", **found)


if __name__ == "__main__":
    task = {
        "write": write,
        "torchvision": write_torchvision,
        "pickles": pickles,
        "read": read,
        "resize": resize,
    }[sys.argv[1]]
    task(pathlib.Path(sys.argv[2]))
