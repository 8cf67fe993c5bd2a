"""What happens to a branch before it is added to the residual stream."""

import keras
from keras import layers, ops

from keras_vit.config import check_rate


@keras.saving.register_keras_serializable(package="keras_vit")
class DropPath(layers.Layer):
    """Drops a whole residual branch for some images of the batch, in training.

    Kept branches are divided by the keep probability, so the expected sum is unchanged.

    Args:
        rate: Probability in [0, 1) that an image's branch becomes zero.
        seed: Seed of the random choice.

    Input shape: `(b, n, d)`.  Output shape: `(b, n, d)`.

    Raises:
        ValueError: If the rate is outside [0, 1).

    Source: https://arxiv.org/abs/1603.09382, section 3.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        check_rate("rate", rate)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, branch, training=False):
        if not training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        shape = (ops.shape(branch)[0],) + (1,) * (len(branch.shape) - 1)
        kept = keras.random.uniform(shape, seed=self.seed_generator) < keep
        return branch * ops.cast(kept, branch.dtype) / keep

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerScale(layers.Layer):
    """gamma * branch, one learned gamma for each of the d channels.

    Args:
        initial: First value of every gamma.

    Input shape: `(b, n, d)`.  Output shape: `(b, n, d)`.

    Source: https://arxiv.org/abs/2103.17239, section 2.
    """

    def __init__(self, initial: float, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial),
            name="gamma",
        )

    def call(self, branch):
        return branch * self.gamma

    def get_config(self):
        return super().get_config() | {"initial": self.initial}
