"""Names of classes that a model, a file or a data set has mean the same everywhere."""

import keras
import numpy as np
import pytest
from commands import complaint
from keras import layers
from keras_vit_cli.main import main
from keras_vit_device.tflite.labels import parse, told_apart


@pytest.fixture
def light_first(tmp_path):
    """A model of another make that tells light images, class 0, from dark ones."""
    image = keras.Input((8, 8, 3))
    dense = layers.Dense(2, activation="softmax")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(image)))
    dense.set_weights([np.tile([0.1, -0.1], (3, 1)), np.array([-40.0, 40.0])])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_classes_in_another_order_are_matched_by_name(light_first, photos, capfd):
    given = ["--dataset", photos, "--input-scale", "0..255"]
    evaluate = list(map(str, ["evaluate", light_first, *given]))
    assert main(evaluate) == 0
    out = capfd.readouterr().out
    assert "named light, dark, top-1 would be 100.0%" in out
    # The advice can be taken.
    names = light_first.with_name("names.txt")
    names.write_text("light\ndark\n")
    assert main([*evaluate, "--labels", str(names)]) == 0
    out = capfd.readouterr().out
    assert "classes in another order: they are matched by name" in out
    assert "test images: 100.00%" in out
    output = light_first.with_suffix(".tflite")
    export = ["export", light_first, *given, "--labels", names, "--output", output]
    assert main(list(map(str, [*export, "--recipe", "float32"]))) == 0
    capfd.readouterr()
    picture = next((photos / "light").iterdir())
    assert main(["classify", str(output), str(picture)]) == 0
    assert ": light 100.0%" in capfd.readouterr().out
    assert main(["evaluate", str(output), "--dataset", str(photos)]) == 0
    assert "test images: 100.00%" in capfd.readouterr().out


def test_names_that_are_twice_in_labels_are_told_apart(light_first, photos, capfd):
    names = light_first.with_name("names.txt")
    names.write_text("crane\ncrane\n")
    picture = next((photos / "light").iterdir())
    given = ["--input-scale", "0..255", "--labels", str(names)]
    assert main(["classify", str(light_first), str(picture), *given]) == 0
    assert "crane (0) 100.0%" in capfd.readouterr().out
    for content, words in (
        ("a\n\nb", "a class name in each line"),
        ("a", "num_classes=2"),
    ):
        names.write_text(content)
        assert words in complaint(capfd, "classify", light_first, picture, *given)
    names.write_bytes("é".encode("latin-1"))
    line = complaint(capfd, "classify", light_first, picture, *given)
    assert "is no UTF-8 text" in line


def test_each_class_gets_a_name_that_no_other_has():
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = [str(rng.choice(["a", "a (0)", "a (1)", "", "b"])) for _ in range(6)]
        apart = told_apart(names)
        assert len(set(apart)) == 6
        assert all(new.startswith(old) for old, new in zip(names, apart, strict=True))
    assert told_apart(("a", "b")) == ("a", "b")
    assert parse(b"") == parse(b" \n\n") == ()
