"""The wiring: published sizes, the contract in the file, properties of the whole."""

import contextlib
import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit import (
    ViTConfig,
    build_vit,
    config_of,
    layers,
    with_head,
    with_rgb_input,
)
from keras_vit import model as models
from keras_vit.config import POOLS, POSITIONS
from keras_vit.features import feature_model
from keras_vit.training.loop import first_tokens_alone

# At 224 pixels and 1000 classes: vision_transformer's `models_test.py`.
PUBLISHED = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
}

# Together they change every field of ViTConfig, which a test below makes sure of.
CONFIGS = {
    "token": {
        "channels": 1,
        "mean": 0.2,
        "std": 0.3,
        "positions": "sinusoidal_1d",
        "num_registers": 2,
        "class_names": ("a", "b", "c"),
        "head_output": "softmax",
        "qk_norm": True,
        "norm_epsilon": 1e-3,
    },
    "mean": {
        "pool": "mean",
        "class_token": False,
        "stem": (4,),
        "positions": "sincos_2d",
        "activation": "swiglu",
        "dropout": 0.1,
        "patch_dropout": 0.25,
        "norm_after_pool": True,
    },
    "token and mean": {"pool": "token_and_mean", "num_registers": 2},
    "map": {
        "pool": "map",
        "num_registers": 1,
        "positions_cover_prefix": False,
        "activation": "gelu_tanh",
        "head_hidden": (5,),
        "head_activation": "tanh",
        "head_dropout": 0.3,
        "drop_path": 0.2,
        "resize": "crop",
        "interpolation": "bicubic",
        "crop": 0.875,
    },
    "sequence": {
        "pool": "sequence",
        "class_token": False,
        "activation": "relu",
        "attention_dropout": 0.4,
        "layer_scale": 0.1,
        "stem": (4, 6),
    },
    "reduced": {
        "depth": 3,
        "image_size": (16, 16),
        "reduce_tokens": ((0, "pool", 2), (1, "prune", 0.5)),
    },
    "distilled": {
        "distillation_token": True,
        "head_output": "softmax",
        "norm_after_pool": True,
    },
    "other sizes": {
        "image_size": (6, 9),
        "patch_size": 3,
        "num_classes": 2,
        "width": 12,
        "depth": 4,
        "drop_path": 0.1,
        "num_heads": 3,
        "mlp_dim": 10,
    },
}


@pytest.fixture(params=CONFIGS)
def config(request, tiny):
    return tiny(**CONFIGS[request.param])


@pytest.mark.parametrize(("variant", "parameters"), PUBLISHED.items())
def test_parameter_count_is_the_papers(variant, parameters):
    config = ViTConfig.from_variant(variant, image_size=224, num_classes=1000)
    assert build_vit(config).count_params() == parameters
    keras.backend.clear_session()


@pytest.mark.long
def test_parameter_count_of_the_large_model_is_the_papers():
    config = ViTConfig.from_variant("L/16", image_size=224, num_classes=1000)
    assert build_vit(config).count_params() == 304_326_632


@pytest.mark.parametrize(
    ("variant", "least", "most"), [("nano/2", 2e5, 2.2e5), ("micro/4", 6.5e5, 7.5e5)]
)
def test_the_small_sizes_are_as_small_as_they_say(variant, least, most):
    config = ViTConfig.from_variant(variant, image_size=16, channels=1, num_classes=10)
    assert least < build_vit(config).count_params() < most


def test_the_configs_change_every_field(tiny):
    changed = set()
    for fields in CONFIGS.values():
        config, default = tiny(**fields), tiny()
        changed |= {
            field.name
            for field in dataclasses.fields(ViTConfig)
            if getattr(config, field.name) != getattr(default, field.name)
        }
    assert changed == {field.name for field in dataclasses.fields(ViTConfig)}


def test_config_of_gives_the_config_back_also_from_a_file(config, tmp_path):
    model = build_vit(config)
    assert config_of(model) == config
    model.save(tmp_path / "model.keras")
    assert config_of(keras.saving.load_model(tmp_path / "model.keras")) == config


def test_a_loaded_model_predicts_the_same_to_the_last_bit(
    config, rng, randomize, tmp_path
):
    images = rng.uniform(0, 255, (3, *config.image_size, config.channels))
    model = randomize(build_vit(config))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict_on_batch(images)
    assert np.ptp(expected) > 0, "the weights are random"
    np.testing.assert_array_equal(again.predict_on_batch(images), expected)


def test_a_new_process_loads_it_in_safe_mode_and_predicts_the_same(
    tiny, rng, randomize, tmp_path
):
    config = tiny(**CONFIGS["map"])
    images = rng.uniform(0, 255, (3, *config.image_size, 3)).astype("float32")
    model = randomize(build_vit(config))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    script = (
        "import keras, keras_vit, numpy as np\n"
        "model = keras.saving.load_model('model.keras', safe_mode=True)\n"
        "np.save('output.npy', model.predict_on_batch(np.load('images.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "output.npy"), model.predict_on_batch(images)
    )


def test_one_image_gives_its_row_of_the_batch(config, rng, randomize):
    images = rng.uniform(0, 255, (3, *config.image_size, config.channels))
    model = randomize(build_vit(config))
    whole = model.predict_on_batch(images)
    np.testing.assert_allclose(
        model.predict_on_batch(images[1:2]), whole[1:2], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_fits_in_mixed_precision(policy, config, rng, uncompiled):
    keras.config.set_dtype_policy(policy)
    model = build_vit(config)
    loss = keras.losses.SparseCategoricalCrossentropy(config.head_output == "logits")
    model.compile("adam", loss)
    images = rng.uniform(0, 255, (4, *config.image_size, config.channels))
    history = model.fit(images, np.arange(4) % 2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.predict_on_batch(images).dtype == np.float32


def test_without_positions_the_patches_could_come_in_any_order(tiny, rng, randomize):
    """With the positions set to zero, and only then, shuffled patches change nothing."""
    model = randomize(build_vit(tiny(pool="mean")))
    image = rng.uniform(0, 255, (1, 8, 12, 3))
    swapped = image.copy()
    swapped[:, :4, :4], swapped[:, 4:, 8:] = image[:, 4:, 8:], image[:, :4, :4]
    first, second = (model.predict_on_batch(x) for x in (image, swapped))
    assert not np.allclose(first, second, atol=1e-3)
    positions = model.get_layer("positions")
    positions.set_weights([np.zeros_like(positions.get_weights()[0])])
    first, second = (model.predict_on_batch(x) for x in (image, swapped))
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("classes", [3, 5])
def test_with_head_takes_all_weights_but_those_of_another_head(
    classes, tiny, randomize, rng
):
    model = randomize(build_vit(tiny(stem=(4,), num_registers=1, head_hidden=(6,))))
    other = with_head(model, classes)
    images = rng.uniform(0, 255, (2, 8, 12, 3))
    pooled = [
        keras.Model(it.input, it.get_layer("pool").output) for it in (model, other)
    ]
    np.testing.assert_array_equal(*(it.predict_on_batch(images) for it in pooled))
    found = other.predict_on_batch(images)
    if classes == 3:
        np.testing.assert_array_equal(found, model.predict_on_batch(images))
    else:
        np.testing.assert_array_equal(found, np.zeros((2, 5)))


@pytest.mark.parametrize("name", ["embedding", "block_00_attention", "block_01_mlp"])
def test_dropout_acts_at_each_of_its_places_in_training_only(
    name, tiny, randomize, rng
):
    """Source: https://arxiv.org/abs/2010.11929, appendix B.1, and its published code."""
    model = randomize(build_vit(tiny(dropout=0.5)))
    if name == "block_01_mlp":
        layer, x = model.get_layer(name), rng.normal(size=(2, 4, 8)).astype("float32")
    else:
        layer, x = model.get_layer(f"{name}_dropout"), np.ones((2, 4, 8), "float32")
    np.testing.assert_array_equal(layer(x), layer(x))
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert (first != second).any()
    if name != "block_01_mlp":
        assert set(np.unique(first)) == {0.0, 2.0}


def test_dropout_of_the_head_acts_in_training_only(rng, randomize):
    head = layers.ClassificationHead(3, dropout=0.5)
    x = rng.normal(size=(4, 8)).astype("float32")
    head(x)
    randomize(head)
    np.testing.assert_array_equal(head(x), head(x))
    first, second = (np.asarray(head(x, training=True)) for _ in range(2))
    assert (first != second).any()


def test_drop_path_grows_linearly_over_the_blocks(tiny):
    model = build_vit(tiny(depth=3, drop_path=0.4))
    rates = [model.get_layer(f"block_{i:02d}_mlp_drop_path").rate for i in range(3)]
    assert rates == [0.0, 0.2, 0.4]


def test_a_distilled_model_is_the_mean_of_its_heads(tiny, rng, randomize):
    model = randomize(build_vit(tiny(distillation_token=True)))
    heads = [model.get_layer(name).output for name in ("head", "head_distillation")]
    parts = keras.Model(model.input, heads)
    images = rng.uniform(0, 255, (2, 8, 12, 3))
    expected = np.mean(parts.predict_on_batch(images), axis=0)
    np.testing.assert_allclose(model.predict_on_batch(images), expected, atol=1e-5)


def test_features_of_a_block_have_a_name(tiny):
    model = build_vit(tiny())
    tokens = model.get_layer("block_01_mlp_add").output
    assert tokens.shape == (None, 1 + 6, 8)


def test_no_lambda_layer_is_used(config):
    kinds = {type(layer).__name__ for layer in build_vit(config).layers}
    assert "Lambda" not in kinds


def test_config_of_another_model_is_an_error(tiny):
    inputs = keras.Input((4,))
    other = keras.Model(inputs, keras.layers.Dense(2, name="mine")(inputs))
    with pytest.raises(ValueError, match="made by build_vit"):
        config_of(other)
    vit = build_vit(tiny())
    new_head = keras.layers.Dense(7, name="mine")(vit.get_layer("pool").output)
    with pytest.raises(ValueError, match="ends in 'mine'"):
        config_of(keras.Model(vit.input, new_head))


@pytest.mark.parametrize("stem", [(), (4,)])
def test_a_model_of_grey_images_reads_the_luma_of_colours(tiny, rng, randomize, stem):
    fields = {"channels": 1, "mean": 0.2, "std": 0.3, "stem": stem}
    model = randomize(build_vit(tiny(**fields)))
    colour = with_rgb_input(model)
    assert config_of(colour) == tiny(**fields | {"channels": 3})
    image = rng.uniform(0, 255, (2, *colour.input_shape[1:])).astype("float32")
    luma = image @ np.array([[0.299], [0.587], [0.114]])
    expected = model.predict(luma, verbose=0)
    np.testing.assert_allclose(colour.predict(image, verbose=0), expected, atol=1e-5)
    with pytest.raises(ValueError, match="Received: 3 channels"):
        with_rgb_input(colour)


def loss_and_gradients(model, images):
    """Mean square of what a training step puts out, and its gradients."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True)))
    variables = [weight.value for weight in model.trainable_weights]
    return float(loss), tape.gradient(loss, variables)


@pytest.mark.parametrize(("kind", "kept"), [("token", 1), ("distilled", 2)])
def test_training_leaves_out_only_what_has_no_gradient(
    kind, kept, tiny, rng, randomize
):
    config = tiny(**CONFIGS[kind], drop_path=0.5, layer_scale=0.1)
    images = rng.uniform(0, 255, (8, *config.image_size, config.channels))
    weights = randomize(build_vit(config)).get_weights()
    found = []
    for context in (first_tokens_alone, contextlib.nullcontext):
        keras.utils.set_random_seed(0)
        model = build_vit(config)
        model.set_weights(weights)
        last = model.get_layer(f"block_{config.depth - 1:02d}_mlp_add").output
        with context(model):
            found.append(loss_and_gradients(model, images))
            tokens = keras.Model(model.input, last)(images, training=True)
        count = config.num_patches + config.num_prefix_tokens
        assert tokens.shape[1] == (kept if context is first_tokens_alone else count)
    (loss, gradients), (expected_loss, expected) = found
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for got, full in zip(gradients, expected, strict=True):
        assert np.any(full)
        np.testing.assert_allclose(got, full, rtol=1e-4, atol=1e-6)


def test_a_model_on_the_tokens_of_another_is_trained_on_all_of_them(tiny, rng):
    model = build_vit(tiny())
    features = feature_model(model, "mean")
    images = rng.uniform(0, 255, (2, *tiny().image_size, 3))
    np.testing.assert_allclose(
        features(images, training=True), features(images, training=False), rtol=1e-5
    )


def test_several_may_be_parts_of_one_model(tiny, rng):
    first, second = build_vit(tiny()), build_vit(tiny())
    image = keras.Input(first.input_shape[1:])
    mean = keras.layers.Average()([first(image), second(image)])
    assert keras.Model(image, mean).count_params() == 2 * first.count_params()
    assert build_vit(tiny(), name="teacher").name == "teacher"


def test_what_a_field_may_name_has_a_layer():
    assert set(models.KINDS["pool"]) == set(POOLS)
    assert set(models.KINDS["positions"]) == set(POSITIONS)
