import csv
import gc
import json
import weakref

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit.layers import FirstTokens
from keras_vit.training.callbacks import AveragedWeights, BestModel, Progress
from keras_vit.training.optimizer import make_optimizer


@pytest.fixture
def data(stripes, rng):
    return stripes(rng).load(batch_size=16)


@pytest.fixture
def model(tiny):
    names = ("across", "down")
    config = tiny(num_classes=2, class_names=names, depth=1, dropout=0.1)
    return keras_vit.build_vit(config)


def test_training_learns_and_fills_the_folder(model, data, tmp_path, without_xla):
    recipe = keras_vit.TrainingRecipe(epochs=12, learning_rate=1e-2, flip=True)
    folder = tmp_path / "run"
    run = keras_vit.train(model, data, recipe, output=folder, verbose=0)
    assert run.evaluation.top1 > 0.9
    assert {path.name for path in folder.iterdir()} == {
        "model.keras",
        "history.csv",
        "logs",
        "training_images.png",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "run.json",
    }
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    best = max(float(row["val_accuracy"]) for row in rows)
    assert float(rows[run.best_epoch - 1]["val_accuracy"]) == best
    report = json.loads((folder / "run.json").read_text())
    assert report["top1"] == run.evaluation.top1
    assert report["config"]["class_names"] == ["across", "down"]
    kept = keras.saving.load_model(folder / "model.keras")
    validated = keras_vit.evaluate(kept, data.validation, data.class_names)
    targets = np.eye(2)[validated.labels] * 0.9 + 0.1 / 2
    loss = -np.mean(np.sum(targets * np.log(validated.probabilities), axis=1))
    in_history = float(rows[run.best_epoch - 1]["val_loss"])
    assert loss == pytest.approx(in_history, rel=1e-3), "saved is what was validated"
    again = keras_vit.evaluate(kept, data.test, data.class_names)
    np.testing.assert_allclose(
        again.probabilities, run.evaluation.probabilities, atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights(tiny, stripes, uncompiled):
    first_weights = keras_vit.build_vit(tiny(num_classes=2)).get_weights()

    def weights(seed):
        # Built anew each time: its dropout layers come with other seeds.
        model = keras_vit.build_vit(tiny(num_classes=2, dropout=0.1, drop_path=0.2))
        model.set_weights(first_weights)
        data = stripes(np.random.default_rng(0), 40).load(batch_size=16, seed=seed)
        recipe = keras_vit.TrainingRecipe(epochs=1)
        keras_vit.train(model, data, recipe, seed=seed, verbose=0)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    first = weights(1)
    np.testing.assert_array_equal(weights(1), first)
    assert (weights(2) != first).any()


def test_no_layer_drops_what_its_neighbour_drops_a_step_before(
    tiny, stripes, rng, uncompiled
):
    """Keras counts draws in the number by which it tells generators apart."""
    model = keras_vit.build_vit(tiny(num_classes=2, depth=3, drop_path=0.5))
    recipe = keras_vit.TrainingRecipe(epochs=1)
    keras_vit.train(model, stripes(rng, 48).load(batch_size=16), recipe, verbose=0)
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    first, counted = np.array([np.asarray(state) for state in states]).T
    assert len(states) > 2 and len(set(first)) == 1
    assert np.diff(np.sort(counted)).min() > 1_000_000


def test_only_tokens_that_are_read_are_computed_while_it_trains(
    tiny, stripes, rng, uncompiled, monkeypatch
):
    counts, original = [], FirstTokens.call

    def call(self, tokens, training=False):
        kept = original(self, tokens, training=training)
        counts.append((training, kept.shape[1]))
        return kept

    monkeypatch.setattr(FirstTokens, "call", call)
    config = tiny(num_classes=2, class_names=("across", "down"))
    model, data = keras_vit.build_vit(config), stripes(rng).load(batch_size=16)
    every = config.num_patches + 1
    counts.clear()
    keras_vit.train(model, data, keras_vit.TrainingRecipe(epochs=1), verbose=0)
    assert {(True, 1), (False, every)} <= set(counts)
    counts.clear()
    model(np.zeros((2, 8, 12, 3)), training=True)
    assert set(counts) == {(True, every)}


def test_nothing_keeps_a_trained_model_and_its_images(tiny, stripes, rng, uncompiled):
    """Else each of a notebook's trainings would take memory until its end."""
    data = stripes(rng).load(batch_size=16)
    model = keras_vit.build_vit(tiny(num_classes=2, depth=1))
    keras_vit.train(model, data, keras_vit.TrainingRecipe(epochs=1), verbose=0)
    kept = [
        weakref.ref(it)
        for it in (model, data.training_images, data.training_images.split)
    ]
    del model, data
    gc.collect()
    assert [it() for it in kept] == [None] * 3


def test_the_best_epoch_is_the_most_accurate_then_the_least_lossy(model):
    best = BestModel(model)
    scores = [(0.5, 2.0), (0.8, 1.0), (0.8, 0.9), (0.8, 0.9), (0.8, 0.95), (0.7, 0.1)]
    for epoch, (accuracy, loss) in enumerate(scores):
        head = model.get_layer("head").logits
        head.bias.assign(np.full(2, epoch))
        best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
    best.restore()
    assert best.epoch == 3
    np.testing.assert_array_equal(head.bias, [2, 2])


def test_the_last_epoch_is_kept_where_the_recipe_says_so(model):
    best = BestModel(model, keep="last")
    bias = model.get_layer("head").logits.bias
    for epoch, loss in enumerate((0.1, 2.0, np.nan)):
        bias.assign(np.full(2, epoch))
        best.on_epoch_end(epoch, {"val_accuracy": 1 - epoch / 4, "val_loss": loss})
    best.restore()
    assert best.epoch == 2
    np.testing.assert_array_equal(bias, [1, 1])


def test_without_any_number_for_a_loss_there_is_no_best_model(model):
    best = BestModel(model)
    best.set_model(model)
    best.on_epoch_end(0, {"val_accuracy": 0.5, "val_loss": np.nan})
    with pytest.raises(RuntimeError, match="was never a number"):
        best.restore()


def test_weight_decay_leaves_biases_norms_tokens_and_positions_alone(tiny):
    model = keras_vit.build_vit(
        tiny(distillation_token=True, num_registers=1, layer_scale=0.1, qk_norm=True)
    )
    optimizer = make_optimizer(keras_vit.TrainingRecipe(), 10)
    optimizer.build(model.trainable_variables)
    decayed = {
        v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)
    }
    kernels = {v.path for v in model.trainable_variables if v.name == "kernel"}
    assert decayed == kernels
    assert kernels


def test_the_learning_rate_warms_up_and_falls_to_zero():
    recipe = keras_vit.TrainingRecipe(learning_rate=1e-2, warmup=0.1)
    schedule = make_optimizer(recipe, 100)._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(rates, [0, 5e-3, 1e-2, 5e-3, 0], atol=1e-6)


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_run_keeps_what_was_finished(
    after, model, data, tmp_path, monkeypatch, without_xla
):
    def interrupt(self, epoch, logs=None):
        if epoch == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_epoch_begin", interrupt)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        keras_vit.train(model, data, output=folder, verbose=0)
    if not after:
        assert not folder.exists()
        return
    kept = {"model.keras", "history.csv", "curves.png", "run.json", "checkpoints"}
    kept |= {"logs", "training_images.png"}
    assert {path.name for path in folder.iterdir()} == kept
    keras.saving.load_model(folder / "model.keras")


def test_a_folder_that_holds_something_is_refused_and_left_alone(model, data, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds a run"):
        keras_vit.train(model, data, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    "fields", [{}, {"num_classes": 2, "class_names": ("down", "across")}]
)
def test_model_and_data_must_have_the_same_classes_in_order(tiny, data, fields):
    with pytest.raises(ValueError, match="the same order"):
        keras_vit.train(keras_vit.build_vit(tiny(**fields)), data)


def test_a_loss_that_is_no_number_is_no_success(model, data, tmp_path, without_xla):
    weights = model.get_layer("block_00_mlp").hidden.kernel
    weights.assign(np.full(weights.shape, np.nan))
    with pytest.raises(RuntimeError, match="The loss became nan at step 1;"):
        keras_vit.train(model, data, output=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"warmup": 1.0},
        {"label_smoothing": -0.1},
    ],
)
def test_a_wrong_recipe_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        keras_vit.TrainingRecipe(**fields)


def test_averaged_weights_are_swapped_to_the_last_bit(model, rng):
    optimizer = make_optimizer(keras_vit.TrainingRecipe(), 10)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    averages = optimizer._model_variables_moving_average
    pairs = list(zip(model.trainable_variables, averages, strict=True))
    given = []
    for variable, average in pairs:
        values = (scale * rng.normal(size=variable.shape) for scale in (1e3, 1e-3))
        given.append([value.astype("float32") for value in values])
        variable.assign(given[-1][0])
        average.assign(given[-1][1])
    swap = AveragedWeights()
    swap.set_model(model)
    swap.on_test_begin()
    for (variable, average), (first, second) in zip(pairs, given, strict=True):
        np.testing.assert_array_equal(variable, second)
        np.testing.assert_array_equal(average, first)


@pytest.mark.parametrize("fields", [{"channels": 1}, {"image_size": 8}])
def test_images_that_are_not_the_models_are_refused_before_keras_sees_them(
    fields, tiny, data
):
    model = keras_vit.build_vit(tiny(num_classes=2, **fields))
    with pytest.raises(ValueError, match=r"a model of \(8, .* images of \(8, 12, 3\)"):
        keras_vit.train(model, data)
