"""Diagrams name what the model has."""

import dataclasses

import pytest
from matplotlib.text import Text

import keras_vit
from keras_vit import pictures

SMALL = keras_vit.ViTConfig(
    image_size=16,
    patch_size=4,
    width=16,
    depth=3,
    num_heads=2,
    mlp_dim=32,
    num_classes=5,
)
MODELS = {
    "plain": SMALL,
    "one block": dataclasses.replace(SMALL, depth=1),
    "teacher": dataclasses.replace(SMALL, distillation_token=True),
    "all branches": dataclasses.replace(
        SMALL, stem=(8,), drop_path=0.1, layer_scale=0.1, dropout=0.1, num_registers=2
    ),
    "map": dataclasses.replace(
        SMALL, pool="map", class_token=False, positions_cover_prefix=None
    ),
}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_diagram_has_every_layer_by_its_name_and_shape(config, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda it, path: drawn.append(it))
    pictures.draw_model(config, tmp_path / "model.png")
    texts = [it.get_text() for it in drawn[0].findobj(Text)]
    names = {it.split("\n")[0].removeprefix("+  ") for it in texts}
    model = keras_vit.build_vit(config)
    shown = {it.name for it in model.layers if it.name.startswith("block_00")}
    shown |= {it.name for it in model.layers if not it.name.startswith("block_")}
    assert shown - {"pool_reads"} <= names
    patches = model.get_layer("patches").output.shape
    assert f"patches\n(b, {patches[1]}, {patches[2]})" in texts
    last = (
        f"block_00 ... block_{config.depth - 1:02d}" if config.depth > 1 else "block_00"
    )
    assert last in names


def test_a_diagram_is_a_picture(tmp_path):
    pictures.draw_model(SMALL, tmp_path / "model.png")
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
