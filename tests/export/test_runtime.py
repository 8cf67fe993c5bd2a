import numpy as np
import pytest
from keras_vit_export import Classifier, metadata
from keras_vit_export.exporter import export
from PIL import Image

from keras_vit import build_vit

NAMES = ("cat", "dog, small", "fish")


@pytest.fixture(scope="module")
def content():
    import keras

    from keras_vit import ViTConfig

    keras.utils.set_random_seed(0)
    model = build_vit(
        ViTConfig(
            image_size=(8, 12),
            patch_size=4,
            width=8,
            depth=1,
            num_heads=2,
            mlp_dim=12,
            num_classes=3,
            class_names=NAMES,
            resize="crop",
            crop=0.9,
        )
    )
    head = model.get_layer("head").logits
    head.kernel.assign(np.random.default_rng(0).normal(size=head.kernel.shape))
    return export(model, "float32")[0]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype("uint8")
    Image.fromarray(pixels).save(path)
    return path


def test_a_file_carries_its_names_and_preprocessing(content, photo, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    classifier = Classifier(path)
    assert classifier.class_names == NAMES
    assert classifier.preprocessing["resize"] == "crop"
    assert classifier.preprocessing["crop"] == 0.9
    answer = classifier(photo)
    assert set(answer) == set(NAMES)
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert sum(answer.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_file_without_metadata_still_runs(content, photo):
    bare = content[: content.rindex(b"PK\x03\x04", 0, content.index(b"PK\x01\x02"))]
    bare = bare[: bare.index(b"PK\x03\x04")]
    classifier = Classifier(bare)
    assert classifier.class_names == ("class 0", "class 1", "class 2")
    assert classifier.preprocessing["resize"] == "stretch"
    assert len(classifier(photo)) == 3


def test_what_is_attached_is_read_back_and_the_model_stays_in_front():
    model = b"TFL3 is not looked at" * 10
    attached = metadata.attach(model, ["a", "b"], {"top1": 0.5})
    assert attached.startswith(model)
    assert metadata.read(attached) == (("a", "b"), {"top1": 0.5})
    assert metadata.read(model) == ((), {})


def test_a_missing_or_cut_off_file_is_one_clear_line(content, tmp_path):
    path = tmp_path / "cut.tflite"
    with pytest.raises(ValueError, match="There is no file"):
        Classifier(path)
    tails = (len(content) - cut for cut in (1, 10, 22, 200, 400))
    for part in (0, 10, 1000, len(content) // 2, *tails):
        path.write_bytes(content[:part])
        with pytest.raises(ValueError, match="cut off or is no TFLite") as error:
            Classifier(path)
        assert "\n" not in str(error.value)


def test_a_broken_image_is_an_os_error(content, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"broken.png"):
        Classifier(content).read(tmp_path / "broken.png")
