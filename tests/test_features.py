import keras
import numpy as np
import pytest

import keras_vit
from keras_vit.features import feature_model


@pytest.mark.parametrize("after", [False, True])
def test_features_are_the_normalized_tokens(after, tiny, randomize, rng):
    config = tiny(num_registers=2, norm_after_pool=after)
    model = randomize(keras_vit.build_vit(config))
    images = rng.integers(0, 256, (3, 8, 12, 3))
    last = keras.Model(model.input, model.get_layer("block_01_mlp_add").output)
    tokens = np.asarray(last(images), "float64")
    gamma, beta = (np.asarray(it) for it in model.get_layer("final_norm").weights)

    def norm(x):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + config.norm_epsilon) * gamma + beta

    token = norm(tokens[:, 0])
    mean = norm(tokens[:, 3:].mean(1)) if after else norm(tokens)[:, 3:].mean(1)
    expected = {"token": token, "mean": mean, "both": np.concatenate([token, mean], 1)}
    for kind, features in expected.items():
        got = feature_model(model, kind)(images)
        np.testing.assert_allclose(got, features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["token", "mean", "both"])
def test_features_of_mixed_precision_are_float32(kind, tiny, rng):
    """NumPy writes bfloat16 as bytes that mean nothing."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = feature_model(keras_vit.build_vit(tiny(norm_after_pool=True)), kind)
    assert model.predict_on_batch(rng.uniform(0, 255, (2, 8, 12, 3))).dtype == "float32"


def test_a_class_token_that_is_not_there_has_no_features(tiny):
    model = keras_vit.build_vit(tiny(class_token=False, pool="mean"))
    assert feature_model(model, "mean").output_shape == (None, 8)
    with pytest.raises(ValueError, match="no class token"):
        feature_model(model, "both")
