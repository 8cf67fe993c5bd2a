"""What `train` plans for few images, and how a run that has ended goes on."""

import json

import keras
import numpy as np
import pytest
from commands import complaint
from keras_vit_cli.main import _parser, main
from keras_vit_cli.plans import new_plan, resumed_plan
from keras_vit_cli.train import _build
from PIL import Image

import keras_vit
from keras_vit.files import save_model
from keras_vit.training.callbacks import Progress
from tests.conftest import pictures_off


@pytest.fixture(autouse=True)
def _without_pictures():
    with pictures_off():
        yield


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """A folder of two classes of 15 colour photographs, of unequal sizes."""
    root, rng = tmp_path_factory.mktemp("snapshots"), np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 155)):
        (root / name).mkdir()
        for index in range(15):
            size = (*rng.integers(70, 90, 2), 3)
            pixels = rng.integers(low, low + 100, size).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def options_of(*arguments):
    return _parser().parse_args(["train", *map(str, arguments)])


def test_few_photographs_are_planned_for_and_options_win(snapshots):
    source, plan = new_plan(options_of("--dataset", snapshots, "--image-size", 64))
    count = source.splits["train"].count
    assert plan.config.stem == (32, 64, 128) and plan.config.image_size == (64, 64)
    assert count * plan.recipe.passes // plan.batch_size * plan.recipe.epochs >= 1000
    assert plan.recipe.flip and "--set flip=false" in " ".join(plan.reasons)
    given = ["--variant", "nano/4", "--image-size", 16, "--epochs", 5, "--seed", 3]
    given += ["--batch-size", 7, "--set", "flip=false", "--set", "passes=2"]
    _, plan = new_plan(options_of("--dataset", snapshots, *given))
    assert plan.config.image_size == (16, 16) and plan.config.depth == 4
    assert plan.batch_size == 7 and plan.seed == 3
    recipe = plan.recipe
    assert (recipe.epochs, recipe.flip, recipe.passes) == (5, False, 2)


def test_grey_scans_of_unequal_sizes_are_not_mirrored(snapshots, tmp_path):
    for path in snapshots.glob("*/*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).convert("L").save(tmp_path / path.relative_to(snapshots))
    _, plan = new_plan(options_of("--dataset", tmp_path))
    assert not plan.recipe.flip and "mirrored" not in " ".join(plan.reasons)
    assert new_plan(options_of("--dataset", tmp_path, "--flip"))[1].recipe.flip


def test_a_run_of_few_images_is_resumed_with_its_own_plan(snapshots):
    _, plan = new_plan(options_of("--dataset", snapshots))
    stored = {
        "dataset": str(snapshots),
        "config": vars(plan.config),
        "recipe": vars(plan.recipe),
        "batch_size": plan.batch_size,
    }
    stored = json.loads(json.dumps(stored))
    _, again = resumed_plan(options_of("--resume", "run"), stored)
    assert (again.config, again.recipe) == (plan.config, plan.recipe)
    assert again.batch_size == plan.batch_size and again.reasons == ()


def test_a_model_of_ones_own_is_trained_at_another_size(
    snapshots, tiny, tmp_path, capfd
):
    model = keras_vit.build_vit(tiny(image_size=8, num_classes=2))
    save_model(model, tmp_path / "m.keras")
    given = ["--dataset", snapshots, "--from", tmp_path / "m.keras"]
    source, plan = new_plan(options_of(*given, "--image-size", 16))
    assert "convolutions" not in " ".join(plan.reasons)
    resized, data = _build(source, plan)
    assert "from 2 x 2 patches to 4 x 4" in capfd.readouterr().out
    assert keras_vit.config_of(resized).image_size == (16, 16)
    assert next(iter(data.test))[0].shape[1:] == (16, 16, 3)
    for name in ("patches", "block_00_mlp"):
        pairs = zip(
            resized.get_layer(name).get_weights(),
            model.get_layer(name).get_weights(),
            strict=True,
        )
        assert all((a == b).all() for a, b in pairs)
    same, _ = _build(*new_plan(options_of(*given)))
    assert keras_vit.config_of(same).image_size == (8, 8)
    assert "patches to" not in capfd.readouterr().out
    line = complaint(
        capfd, "train", *given, "--image-size", 17, "--output", tmp_path / "r"
    )
    assert "patch_size must divide image_size" in line


def test_a_finished_run_goes_on_and_one_that_learns_nothing_says_so(
    photos, tmp_path, capfd, without_xla, monkeypatch
):
    folder = tmp_path / "run"
    base = ["train", "--dataset", photos, "--image-size", 8, "--batch-size", 8]
    base += ["--epochs", 3, "--learning-rate", 1e-12, "--set", "ema_momentum=0"]
    assert main([*map(str, base), "--output", str(folder)]) == 0
    shown = capfd.readouterr().out
    assert "An epoch is" in shown and "does not beat chance by its interval" in shown
    assert "--from a pretrained model" in shown
    report = json.loads((folder / "run.json").read_text())
    assert len(report["warnings"]) > 1
    for given in ([], ["--epochs", 3], ["--epochs", 2], ["--epochs", 3, "--dry-run"]):
        line = complaint(capfd, "train", "--resume", folder, *given)
        assert "is finished; it goes on with --epochs of more than its 3" in line
    assert json.loads((folder / "run.json").read_text()) == report
    more = ["train", "--resume", folder, "--epochs", 5, "--learning-rate", 1e-2]
    assert main(list(map(str, more))) == 0
    shown = capfd.readouterr().out
    assert "Going on after epoch 3" in shown and "a new optimizer" in shown
    report = json.loads((folder / "run.json").read_text())
    assert report["epochs"] == 5 and report["top1"] == 1.0
    assert report["warnings"] == [] or "of 4 " in report["warnings"][0]


def test_a_run_that_ended_by_no_number_says_how_it_goes_on(
    photos, tmp_path, capfd, without_xla, monkeypatch
):
    count, folder = Progress.on_train_batch_end, tmp_path / "run"

    def lost(self, batch, logs=None):
        count(self, batch, {"loss": np.nan if self.done == 19 else 0.0})

    base = ["train", "--dataset", photos, "--image-size", 8, "--batch-size", 8]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_batch_end", lost)
        line = complaint(capfd, *base, "--epochs", 2, "--output", folder)
    assert "The loss became nan at step 20; a lower learning rate may help" in line
    assert f"--resume {folder} --learning-rate" in line
    assert main(["train", "--resume", str(folder), "--learning-rate", "1e-4"]) == 0
    assert "Going on with another learning rate" in capfd.readouterr().out
    model = keras.saving.load_model(folder / "model.keras")
    assert all(np.isfinite(w).all() for w in model.get_weights())
