"""Published weights on their way to a device, and back to where they came from."""

import json

import keras
import numpy as np
import pytest
from commands import complaint
from keras_vit_cli.main import main
from keras_vit_export import Classifier, export

import keras_vit
from keras_vit.features import feature_model
from keras_vit.weights import load_checkpoint
from tests.weights import dialects
from tests.weights.dialects import Size

SIZE = {"width": 32, "num_heads": 2, "mlp_dim": 64, "grid": (2, 2)}


@pytest.fixture
def checkpoint(tmp_path, rng):
    """A folder as Hugging Face holds it."""
    size = Size(**SIZE, classes=3, epsilon=1e-12)
    arrays = dialects.hugging_face(dialects.weights(rng, size), size)
    dialects.write_hugging_face(tmp_path / "hub", arrays, size)
    return tmp_path / "hub"


def published(kind, folder, rng):
    """A small checkpoint of a kind, loaded."""
    sizes = {
        "timm": Size(**SIZE, qk_norm=True, averaged=True),
        "google": Size(**SIZE, tanh=True),
        "big_vision": Size(**SIZE, tanh=True, class_token=False, attentive=True),
        "deit": Size(**SIZE, distilled=True, epsilon=1e-12),
        "dinov2": Size(**SIZE, registers=3, layer_scale=True, swiglu=True, both=True),
    }
    size = sizes[kind]
    w = dialects.weights(rng, size)
    if kind == "big_vision":
        dialects.write_npz(folder / "model.npz", dialects.google(w, size, kind))
        return load_checkpoint(folder / "model.npz")
    if kind == "google":
        arrays = dialects.google(w, size, "vit_jax")
        arrays["pre_logits/kernel"] = rng.normal(size=(32, 32)).astype("float32")
        arrays["pre_logits/bias"] = rng.normal(size=32).astype("float32")
        dialects.write_npz(folder / "model.npz", arrays)
        return load_checkpoint(folder / "model.npz")
    if kind == "timm":
        dialects.write_safetensors(folder / "model.safetensors", w)
        return load_checkpoint(folder, preprocessing="imagenet", num_heads=2)
    arrays = dialects.hugging_face(w, size, kind=kind)
    more = {"use_swiglu_ffn": True} if size.swiglu else {}
    dialects.write_hugging_face(folder, arrays, size, **more)
    return load_checkpoint(folder)


def test_one_of_several_models_is_imported_by_its_prefix(tmp_path, rng, capfd):
    w = dialects.weights(rng, Size(**SIZE))
    arrays = {f"{it}.{k}": w[k] for k in w for it in ("student", "teacher")}
    dialects.write_safetensors(tmp_path / "dino.safetensors", arrays)
    command = ["import", str(tmp_path / "dino.safetensors"), "--num-heads", "2"]
    command += ["--output", str(tmp_path / "m.keras"), "--preprocessing", "imagenet"]
    assert "'student.', 'teacher.'; prefix must say" in complaint(capfd, *command)
    assert main([*command, "--prefix", "teacher"]) == 0
    said = capfd.readouterr().out
    assert "names are read without 'teacher.'" in said
    assert "another model left out: 'student.'" in said


@pytest.mark.parametrize("kind", ["timm", "google", "big_vision", "deit", "dinov2"])
def test_loaded_models_are_exported_and_agree(kind, tmp_path, rng):
    model = published(kind, tmp_path, rng)
    images = rng.integers(0, 256, (64, 8, 8, 3)).astype("uint8")
    expected = np.asarray(keras.ops.softmax(model(images.astype("float32"))))
    for recipe, bound in (("float32", 1e-4), ("dynamic_int8", 0.1)):
        content, report = export(model, recipe)
        got = Classifier(content).probabilities(images)
        assert np.abs(got - expected).max() < bound, recipe
        assert report.max_difference < bound
    assert (got.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_import_writes_a_model_and_says_what_it_did(checkpoint, tmp_path, capfd, rng):
    out = tmp_path / "model.keras"
    arguments = [
        "import",
        str(checkpoint),
        "--output",
        str(out),
        "--image-size",
        "12x8",
    ]
    assert main(arguments) == 0
    said = capfd.readouterr().out
    assert "Hugging Face" in said
    assert "preprocessor_config.json" in said
    assert "positions resized from (2, 2) to (3, 2) (bicubic)" in said
    config = keras_vit.config_of(keras.saving.load_model(out))
    assert (config.image_size, config.norm_epsilon) == ((12, 8), 1e-12)
    assert config.class_names == ("class 0", "class 1", "class 2")


def test_what_can_not_be_imported_is_one_line_and_no_file(checkpoint, tmp_path, capfd):
    out = tmp_path / "model.keras"
    line = complaint(capfd, "import", tmp_path / "none", "--output", out)
    assert "no file" in line
    (checkpoint / "preprocessor_config.json").unlink()
    line = complaint(capfd, "import", checkpoint, "--output", out)
    assert "'inception'" in line
    line = complaint(capfd, "import", checkpoint, "--output", tmp_path / "model.h5")
    assert ".keras" in line
    assert not out.exists()


def test_weights_go_to_timms_folder_and_come_back(saved, tmp_path, capfd):
    line = complaint(capfd, "export-weights", saved, "--output", tmp_path / "timm")
    assert "convolutional stem" in line
    assert not (tmp_path / "timm").exists()
    model = keras_vit.build_vit(
        keras_vit.ViTConfig(
            image_size=8,
            patch_size=4,
            width=8,
            depth=1,
            num_heads=2,
            mlp_dim=8,
            num_classes=3,
        )
    )
    model.save(tmp_path / "plain.keras")
    arguments = [
        "export-weights",
        tmp_path / "plain.keras",
        "--output",
        tmp_path / "timm",
    ]
    assert main([str(it) for it in arguments]) == 0
    again = tmp_path / "again.keras"
    assert main(["import", str(tmp_path / "timm"), "--output", str(again)]) == 0
    loaded = keras.saving.load_model(again)
    for before, after in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("kind", ["token", "mean", "both"])
def test_features_of_a_folder(kind, checkpoint, photos, tmp_path, capfd):
    model, out = tmp_path / "model.keras", tmp_path / "features.npz"
    assert main(["import", str(checkpoint), "--output", str(model)]) == 0
    (photos / "light" / "broken.png").write_bytes(b"no image")
    options = ["--output", str(out), "--kind", kind, "--json", str(tmp_path / "json")]
    assert main(["features", str(model), str(photos), *options]) == 2
    assert "broken.png" in capfd.readouterr().err
    found = np.load(out)
    assert found["features"].shape == (40, 64 if kind == "both" else 32)
    assert json.loads((tmp_path / "json").read_text())["images"] == 40
    from keras_vit_export.any_classifier import open_classifier

    classifier = open_classifier(model)
    row = 37
    image = classifier.read(str(found["paths"][row]))
    alone = feature_model(classifier.model, kind)(image[None])
    np.testing.assert_allclose(found["features"][row], alone[0], rtol=1e-3, atol=1e-4)
