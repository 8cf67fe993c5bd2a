"""The command `import`: published weights -> a `.keras` model."""

import argparse

from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say

from keras_vit.files import save_model
from keras_vit.reuse import config_of
from keras_vit.weights import read_checkpoint


def run(options: argparse.Namespace) -> int:
    """Published weights -> a `.keras` model, with a report of what was done."""
    if options.output.suffix != ".keras":
        raise ValueError(f"--output must end in .keras. Received: '{options.output}'")
    check_writable(options.output, options.json)
    found = read_checkpoint(
        options.checkpoint,
        image_size=options.image_size,
        patch_size=options.patch_size,
        num_classes=options.num_classes,
        preprocessing=options.preprocessing,
        position_mode=options.position_mode,
        num_heads=options.num_heads,
        source_image_size=options.source_image_size,
        prefix=options.prefix,
    )
    save_model(found.model, options.output)
    config = config_of(found.model)
    say(
        f"{found.format}: {found.model.count_params():,} parameters, {config.depth} "
        f"blocks of width {config.width}, {config.num_heads} heads, patches of "
        f"{config.patch_size} pixels, {config.num_classes} classes"
    )
    say(
        f"Pixels: {config.image_size[0]} x {config.image_size[1]}, mean "
        f"{_say_numbers(config.mean)}, std {_say_numbers(config.std)}, "
        f"{config.resize}, {config.interpolation}, middle {config.crop:.1%} "
        f"({found.preprocessing})"
    )
    say(f"{config.activation}, norms with epsilon {config.norm_epsilon:g}")
    for remark in found.remarks:
        say(f"  {remark}")
    say(f"Written: '{options.output}'")
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


def _say_numbers(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in dict.fromkeys(numbers))
