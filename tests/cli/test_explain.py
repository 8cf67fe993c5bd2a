"""`keras-vit explain`: pictures, figures, and one line for what can't be explained."""

import json

import numpy as np
from commands import complaint
from keras_vit_cli.main import main
from PIL import Image


def test_explain_draws_and_says_what_it_saw(saved, photos, tmp_path, capfd):
    image, out = photos / "dark" / "0.png", tmp_path / "attention.png"
    options = ["--output", str(out), "--positions", str(tmp_path / "positions.png")]
    options += ["--json", str(tmp_path / "json")]
    assert main(["explain", str(saved), str(image), *options]) == 0
    assert "1 blocks of 4 heads" in capfd.readouterr().out
    for path in (out, tmp_path / "positions.png"):
        assert Image.open(path).width > 200
    figures = json.loads((tmp_path / "json").read_text())
    assert np.shape(figures["rollout"]) == (2, 2)
    assert abs(np.sum(figures["rollout"]) - 1) < 1e-4


def test_what_can_not_be_explained_is_one_line(saved, photos, tmp_path, capfd):
    out = tmp_path / "attention.png"
    (tmp_path / "broken.png").write_bytes(b"no image")
    for model, image in (
        (saved, tmp_path / "broken.png"),
        (saved, tmp_path / "absent.png"),
        (tmp_path / "absent.keras", photos / "dark" / "0.png"),
    ):
        line = complaint(capfd, "explain", model, image, "--output", out)
        assert image.name in line or "absent.keras" in line
        assert not out.exists()
