"""The command `explain`: pictures of what a model's attention looks at."""

import argparse

from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say

from keras_vit import explain as see
from keras_vit.reuse import config_of
from keras_vit_cli.inputs import open_keras


def run(options: argparse.Namespace) -> int:
    """A `.keras` model and an image -> attention maps over the image."""
    check_writable(
        options.output,
        options.positions,
        options.json,
        read=[options.model, options.image],
    )
    classifier = open_keras(options.model)
    try:
        image = classifier.read(options.image)
    except OSError as error:
        raise ValueError(str(error)) from error
    config = config_of(classifier.model)
    maps = see.attention_maps(classifier.model, image[None])
    groups = see.token_groups(classifier.model, image[None])
    see.draw_attention(image, maps[0], config, options.output, groups[0])
    if options.positions:
        similarity = see.position_similarity(classifier.model)
        see.draw_position_similarity(similarity, options.positions)
    probabilities = classifier.probabilities([image])[0]
    best = int(probabilities.argmax())
    name, part = classifier.class_names[best], float(probabilities[best])
    say(f"{options.image}: {name} {part:.1%}")
    say(f"{config.depth} blocks of {config.num_heads} heads: '{options.output}'")
    if options.positions:
        say(f"Similarity of positions: '{options.positions}'")
    rolled = see.patch_maps(see.rollout(maps, groups)[0], config)
    write_json(
        options.json,
        {"class": name, "probability": part, "rollout": rolled.round(6).tolist()},
    )
    return 0
