"""Draws the pictures of the README and the site: python docs/pictures.py

    python docs/pictures.py --front model.keras image.png page.png

`model.png` is drawn from a configuration; `front.png` of a model, an image, and a
screenshot of the page of `keras-vit web` that shows the image.
"""

import argparse
import pathlib

from keras_vit_export.any_classifier import open_classifier
from matplotlib.figure import Figure
from matplotlib.image import imread

from keras_vit import ViTConfig, config_of
from keras_vit.explain import attention_maps, patch_maps
from keras_vit.pictures import draw_model, save_figure, show_image, show_map

HERE = pathlib.Path(__file__).parent
SHOWN = ((0, 2), (4, 3), (6, 0), (8, 3), (11, 1))  # blocks and heads, from 0


def draw_front(model: pathlib.Path, image: pathlib.Path, page: pathlib.Path) -> None:
    """Where a model looks, and what it answers in a browser."""
    classifier = open_classifier(model)
    config = config_of(classifier.model)
    pixels = classifier.read(image)
    maps = attention_maps(classifier.model, pixels[None])[0]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[5.6, 3])
    left.suptitle("what the class token takes from each patch", fontsize=10)
    plain, *places = left.subplots(2, 3).ravel()
    show_image(plain, pixels)
    plain.set_title("image", fontsize=8, pad=2)
    for place, (block, head) in zip(places, SHOWN, strict=True):
        part = patch_maps(maps[block, head], config)
        show_map(place, pixels, part, f"block {block + 1}, head {head + 1}")
    right.suptitle("and the answer, in a browser", fontsize=10)
    answer = right.subplots()
    answer.imshow(imread(page)[:, :396])
    for place in (plain, *places, answer):
        place.set(xticks=[], yticks=[])
    save_figure(figure, HERE / "front.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--front", nargs=3, type=pathlib.Path, metavar=("KERAS", "IMAGE", "PAGE")
    )
    options = parser.parse_args()
    config = ViTConfig.from_variant("nano/2", image_size=8, channels=1, num_classes=10)
    draw_model(config, HERE / "model.png")
    if options.front:
        draw_front(*options.front)


if __name__ == "__main__":
    main()
