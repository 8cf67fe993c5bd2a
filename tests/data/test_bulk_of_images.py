"""What most images of a folder are decides; a few odd ones do not."""

import numpy as np
import pytest
from PIL import Image

from keras_vit.data import find_source, load_data
from keras_vit.data.folders import Seen, find_bulk
from keras_vit.training.plan import plan_for

GREY, COLOR = (1, True), (3, False)
GREY_IN_COLOR_FILES = (3, True)


def seen(*groups):
    return [Seen(*size, *kind) for count, size, kind in groups for _ in range(count)]


@pytest.mark.parametrize(
    ("groups", "shape"),
    [
        ([(120, (28, 28), GREY), (1, (29, 28), GREY)], (28, 28, 1)),
        ([(120, (28, 28), GREY), (1, (28, 28), COLOR)], (28, 28, 1)),
        ([(120, (28, 28), GREY), (9, (28, 28), COLOR)], (28, 28, 3)),
        ([(12, (28, 28), GREY), (9, (28, 28), GREY_IN_COLOR_FILES)], (28, 28, 1)),
        ([(119, (28, 28), GREY_IN_COLOR_FILES), (1, (28, 28), GREY)], (28, 28, 3)),
        ([(120, (32, 32), COLOR), (1, (900, 600), COLOR)], (32, 32, 3)),
        ([(60, (300, 300), GREY), (1, (300, 301), GREY)], (300, 300, 1)),
        ([(60, (28, 30), COLOR), (61, (30, 29), COLOR)], (30, 29, 3)),
        ([(50, (30, 30), COLOR), (50, (300, 300), COLOR)], None),
        ([(4, (30, 30), GREY), (1, (30, 30), COLOR)], (30, 30, 3)),
    ],
)
def test_odd_images_do_not_decide_and_the_counts_are_told(groups, shape):
    bulk = find_bulk(seen(*groups))
    count = sum(group[0] for group in groups)
    assert bulk.shape == shape and bulk.words.startswith(f"Of {count} images ")


@pytest.mark.parametrize("kind", [GREY, COLOR, GREY_IN_COLOR_FILES])
def test_images_that_all_agree_need_no_words(kind):
    bulk = find_bulk(seen((5, (28, 20), kind)))
    assert bulk.shape == (28, 20, kind[0]) and bulk.words == ""


@pytest.fixture
def folder(tmp_path, rng):
    """24 grey images of 28 x 28, and one in colour that is larger."""
    for index in range(24):
        path = tmp_path / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28)).astype("uint8")).save(path)
    Image.new("RGB", (31, 29), (200, 0, 0)).save(tmp_path / "a/odd.png")
    return tmp_path


def test_one_odd_image_leaves_the_model_small_and_grey_and_is_fitted(folder):
    source = find_source(str(folder))
    config = plan_for(source).config
    assert (config.image_size, config.channels) == ((28, 28), 1)
    assert (config.patch_size, config.width) == (4, 64), "nano/4"
    assert source.shape_note == "Of 25 images 24 are grey and 24 are 28 x 28 pixels"
    batches = source.load(config, batch_size=25).test.concatenate(
        source.load(config, batch_size=25).train
    )
    shapes = {image.shape for images, _ in batches for image in images}
    assert shapes == {(28, 28, 1)}


def test_images_as_they_are_still_need_one_size(folder):
    with pytest.raises(ValueError, match="differ in size"):
        load_data(str(folder))
    (folder / "a/odd.png").unlink()
    images, _ = next(iter(load_data(str(folder)).test))
    assert images.shape[1:] == (28, 28, 1)


def test_the_plan_says_what_most_images_are(folder, capsys):
    from keras_vit_cli.main import _parser
    from keras_vit_cli.plans import new_plan

    options = ["train", "--dataset", str(folder), "--output", "unused"]
    _, plan = new_plan(_parser().parse_args(options))
    assert plan.config.channels == 1
    assert (
        "Of 25 images 24 are grey and 24 are 28 x 28 pixels: the model takes 28 x 28 "
        "pixels in grey, the others are fitted." in capsys.readouterr().out
    )


def test_a_grey_picture_in_a_file_of_three_channels_is_seen(tmp_path):
    from keras_vit.data.folders import find_images

    grey = np.tile(np.arange(50, dtype="uint8")[:, None, None], (1, 50, 3))
    spot = grey.copy()
    spot[1, 1] = 200, 0, 0  # which a look at a few pixels misses
    for name, pixels in (("a/0", grey), ("b/0", grey), ("b/1", spot)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    words = find_images(tmp_path).bulk.words
    assert words == ""  # all files are alike
    Image.new("L", (50, 50)).save(tmp_path / "a/1.png")
    words = find_images(tmp_path).bulk.words
    assert words.startswith("Of 4 images 3 are grey (2 in files of three channels)")
