"""Learning rates, decay, clipping, accumulation and what is frozen."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit.training.optimizer import layer_scales, make_optimizer
from keras_vit.training.recipes import TRAINING_RECIPES


def gradients(model, rng):
    return [
        rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables
    ]


def adamw(weights, steps, *, rate, decay, scales, decayed, clip, beta=(0.9, 0.999)):
    """AdamW in NumPy: https://arxiv.org/abs/1711.05101, algorithm 2."""
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for t, given in enumerate(steps, start=1):
        norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in given))
        for i, gradient in enumerate(given):
            g = gradient * min(1, clip / norm)
            first[i] = beta[0] * first[i] + (1 - beta[0]) * g
            second[i] = beta[1] * second[i] + (1 - beta[1]) * g**2
            pull = decay * weights[i] if decayed[i] else 0.0
            unbiased = np.sqrt(1 - beta[1] ** t) / (1 - beta[0] ** t)
            step = unbiased * first[i] / (np.sqrt(second[i]) + 1e-7) + pull
            weights[i] = weights[i] - rate * scales[i] * step
    return weights


def test_a_step_is_that_of_the_paper_with_a_rate_for_each_block(tiny, rng, randomize):
    model = randomize(keras_vit.build_vit(tiny()))
    recipe = keras_vit.TrainingRecipe(
        learning_rate=0.1, layer_decay=0.5, weight_decay=0.3, clip_norm=1.0, warmup=0.0
    )
    optimizer = make_optimizer(recipe, 10**9)  # so many that the cosine stays at 1
    variables = model.trainable_variables
    steps = [gradients(model, rng) for _ in range(3)]
    places = {"patches": 3, "positions": 3, "prefix_tokens": 3, "block_00": 2}
    places |= {"block_01": 1, "final_norm": 0, "head": 0}
    scales = [
        0.5 ** next(n for name, n in places.items() if v.path.startswith(name))
        for v in variables
    ]
    assert layer_scales(variables, 0.5) == scales
    expected = adamw(
        [np.array(v) for v in variables],
        steps,
        rate=0.1,
        decay=0.3,
        scales=scales,
        decayed=[v.name == "kernel" for v in variables],
        clip=1.0,
    )
    for given in steps:
        optimizer.apply(given, variables)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=2e-4, atol=1e-5)
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.layer_decay == 0.5


def test_the_rate_is_in_proportion_to_the_images_of_a_change():
    recipe = keras_vit.TrainingRecipe(
        learning_rate=0.1, batch_size=64, accumulation=3, warmup=0.0
    )
    assert float(make_optimizer(recipe, 10, 32).learning_rate) == pytest.approx(0.15)
    assert float(make_optimizer(recipe, 10).learning_rate) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("recipe", "batch_size", "rate"),
    [
        ("scratch_small", 128, 6e-4),
        ("deit", 1024, 1e-3),
        ("augreg", 4096, 1e-3),
        ("finetune", 1024, 4e-3),
    ],
)
def test_rates_are_the_papers(recipe, batch_size, rate):
    """MAE's table 9 gives a base rate, of 256 images, and trains on 1,024."""
    recipe = dataclasses.replace(TRAINING_RECIPES[recipe], warmup=0.0)
    optimizer = make_optimizer(recipe, 10**6, batch_size)
    assert float(optimizer.learning_rate) == pytest.approx(rate)


def test_accumulated_gradients_are_those_of_a_larger_batch(tiny, rng, randomize):
    model = randomize(keras_vit.build_vit(tiny()))
    start = model.get_weights()
    parts = [gradients(model, rng) for _ in range(4)]
    means = [
        [np.mean(pair, axis=0) for pair in zip(*parts[i : i + 2], strict=True)]
        for i in (0, 2)
    ]
    common = {"warmup": 0.0, "ema_momentum": 0.81, "clip_norm": 0.5}
    outcomes = []
    for accumulation, steps in ((1, means), (2, parts)):
        model.set_weights(start)
        recipe = keras_vit.TrainingRecipe(
            accumulation=accumulation, learning_rate=0.1 / accumulation, **common
        )
        optimizer = make_optimizer(recipe, 10**9)
        weights = []
        for given in steps:
            optimizer.apply(given, model.trainable_variables)
            weights.append([np.array(v) for v in model.trainable_variables])
        outcomes.append(weights)
    for whole, summed in zip(outcomes[0][-1], outcomes[1][-1], strict=True):
        np.testing.assert_allclose(summed, whole, rtol=1e-5, atol=1e-6)
    # Of four batches the second and the last change the weights. Up to the first change
    # the average is the weights; then each batch is averaged in at sqrt(0.81).
    found = optimizer._model_variables_moving_average
    for average, values in zip(found, zip(*weights, strict=True), strict=True):
        expected = values[1]
        for value in values[2:]:
            expected = 0.9 * expected + 0.1 * value
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_a_probe_trains_the_head_alone_and_leaves_nothing_frozen(
    tiny, stripes, rng, tmp_path, without_xla
):
    model = keras_vit.build_vit(tiny(num_classes=2, depth=1))
    before = {v.path: np.array(v) for v in model.trainable_variables}
    recipe = TRAINING_RECIPES["linear_probe"]
    recipe = keras_vit.TrainingRecipe(epochs=2, trainable=recipe.trainable)
    data = stripes(rng).load(batch_size=16)
    keras_vit.train(model, data, recipe, output=tmp_path / "run", verbose=0)
    changed = {v.path for v in model.variables if v.path in before}
    changed = {
        path
        for path in changed
        if (before[path] != next(v for v in model.variables if v.path == path)).any()
    }
    assert changed == {"head/logits/kernel", "head/logits/bias"}
    kept = keras.saving.load_model(tmp_path / "run/model.keras")
    for found in (model, kept):
        assert len(found.trainable_variables) == len(before)


def test_a_name_of_no_layer_is_refused(tiny, stripes, rng):
    model = keras_vit.build_vit(tiny(num_classes=2, class_names=("across", "down")))
    recipe = keras_vit.TrainingRecipe(trainable=("head", "blok"))
    with pytest.raises(ValueError, match=r"must name layers, of .*head.*'blok'"):
        keras_vit.train(model, stripes(rng).load(batch_size=16), recipe)
    assert model.trainable_variables


@pytest.mark.parametrize("name", TRAINING_RECIPES)
def test_a_model_that_was_trained_is_saved_and_loaded_by_keras_alone(
    name, tiny, rng, tmp_path, uncompiled
):
    model = keras_vit.build_vit(tiny(depth=1))
    recipe = dataclasses.replace(TRAINING_RECIPES[name], accumulation=2)
    model.compile(make_optimizer(recipe, 10), keras.losses.CategoricalCrossentropy())
    images = rng.uniform(0, 255, (4, *model.input_shape[1:]))
    targets = np.eye(model.output_shape[-1])[[0, 1, 2, 0]]
    model.fit(images, targets, batch_size=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    pairs = zip(loaded.optimizer.variables, model.optimizer.variables, strict=True)
    for got, expected in pairs:
        np.testing.assert_array_equal(got, expected)
    loaded.fit(images, targets, batch_size=2, verbose=0)
