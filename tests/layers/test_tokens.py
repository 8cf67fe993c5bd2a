import numpy as np
import pytest

from keras_vit import layers


def test_prefix_tokens_come_first_in_the_papers_order(rng, randomize):
    patches = rng.normal(size=(3, 4, 8)).astype("float32")
    layer = layers.PrefixTokens(True, True, num_registers=2)
    layer(patches)
    randomize(layer)
    assert [w.name for w in layer.weights] == [
        "class_token",
        "distillation_token",
        "register_tokens",
    ]
    got = np.asarray(layer(patches))
    prefix = np.concatenate(layer.get_weights(), axis=1)
    np.testing.assert_array_equal(got[:, :4], prefix.repeat(3, axis=0))
    np.testing.assert_array_equal(got[:, 4:], patches)


def test_no_token_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        layers.PrefixTokens(class_token=False)


def test_the_first_tokens_are_alone_in_training_and_where_asked_for(rng):
    tokens = rng.normal(size=(3, 5, 8)).astype("float32")
    layer = layers.FirstTokens(2)
    np.testing.assert_array_equal(layer(tokens, training=True), tokens)
    layer.alone = True
    np.testing.assert_array_equal(layer(tokens, training=True), tokens[:, :2])
    np.testing.assert_array_equal(layer(tokens, training=False), tokens)
