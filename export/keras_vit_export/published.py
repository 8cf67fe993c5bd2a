"""Commands between published weights and models: import, export-weights, features."""

import argparse
import sys

from keras_vit_device.files import check_writable, whole_file, write_json
from keras_vit_device.terminal import quiet

from keras_vit_export.arguments import (
    image_paths,
    open_keras,
)

BATCH = 32


def load(options: argparse.Namespace) -> int:
    """Published weights -> a `.keras` model, with a report of what was done."""
    if options.output.suffix != ".keras":
        raise ValueError(f"--output must end in .keras. Received: '{options.output}'")
    check_writable(options.output, options.json)
    with quiet():
        import keras_vit
        from keras_vit.files import save_model
        from keras_vit.weights import read_checkpoint
    names = (
        "image_size",
        "patch_size",
        "num_classes",
        "preprocessing",
        "position_mode",
        "num_heads",
        "source_image_size",
        "prefix",
    )
    given = {name: getattr(options, name) for name in names}
    with quiet():
        found = read_checkpoint(options.checkpoint, **given)
        save_model(found.model, options.output)
    config = keras_vit.config_of(found.model)
    print(
        f"{found.format}: {found.model.count_params():,} parameters, {config.depth} "
        f"blocks of width {config.width}, {config.num_heads} heads, patches of "
        f"{config.patch_size} pixels, {config.num_classes} classes"
    )
    print(
        f"Pixels: {config.image_size[0]} x {config.image_size[1]}, mean "
        f"{_few(config.mean)}, std {_few(config.std)}, {config.resize}, "
        f"{config.interpolation}, middle {config.crop:.1%} ({found.preprocessing})"
    )
    print(f"{config.activation}, norms with epsilon {config.norm_epsilon:g}")
    for remark in found.remarks:
        print(f"  {remark}")
    print(f"Written: '{options.output}'")
    write_json(
        options.json,
        {
            "format": found.format,
            "preprocessing": found.preprocessing,
            "parameters": found.model.count_params(),
            "remarks": list(found.remarks),
        },
    )
    return 0


def export_weights(options: argparse.Namespace) -> int:
    """A `.keras` model -> a folder that timm reads."""
    check_writable(options.json, read=[options.model])
    classifier = open_keras(options.model)
    with quiet():
        from keras_vit.weights import save_timm

        remarks = save_timm(classifier.model, options.output)
    for remark in remarks:
        print(f"  {remark}")
    print(f"Written: '{options.output}', for timm: 'local-dir:{options.output}'")
    write_json(options.json, {"remarks": list(remarks)})
    return 0


def features(options: argparse.Namespace) -> int:
    """Images -> an `.npz` of their features and paths."""
    import numpy as np
    from tqdm import tqdm

    if options.output.suffix != ".npz":
        raise ValueError(f"--output must end in .npz. Received: '{options.output}'")
    check_writable(options.output, options.json, read=[options.model, *options.images])
    classifier = open_keras(options.model)
    paths, left_out = image_paths(options.images)
    for line in left_out.lines:
        print(line, file=sys.stderr)
    with quiet():
        from keras_vit.features import feature_model

        model = feature_model(classifier.model, options.kind)
    found, read = [], []
    for start in tqdm(range(0, len(paths), BATCH), disable=len(paths) <= BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            try:
                images.append(classifier.read(path))
            except OSError as error:
                print(" ".join(str(error).split()), file=sys.stderr)
                continue
            read.append(str(path))
        if images:
            found.append(np.asarray(model(np.stack(images), training=False)))
    if not found:
        raise ValueError("No image could be read.")
    arrays = np.concatenate(found)
    with whole_file(options.output) as partial, open(partial, "wb") as file:
        np.savez(file, features=arrays, paths=np.array(read))
    print(f"{len(read)} images, {arrays.shape[1]} features: '{options.output}'")
    write_json(options.json, {"images": len(read), "features": arrays.shape[1]})
    return 2 if len(read) < len(paths) or left_out.images else 0


def _few(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in dict.fromkeys(numbers))
