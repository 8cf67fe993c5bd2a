"""AdamW as Vision Transformers are trained with it, and its learning rates."""

import keras
import tensorflow as tf
from keras import ops

from keras_vit.training.recipes import TrainingRecipe

# Variables of these names are not pulled to zero: biases, norms, LayerScale, tokens and
# positions. Source: https://arxiv.org/abs/2106.10270, section 3.3.
NOT_DECAYED = ("bias", "gamma", "beta", "token", "positions", "probe")


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate falls by a factor from each block to the one before.

    Keras' MultiOptimizer, an AdamW for each block, can't do this: each of them clips
    the gradients of its own block only, and its averaged weights are found neither by
    SwapEMAWeights nor by its own `finalize_variable_values`.

    Gradients are clipped by the norm of their sum over all replicas; Keras' optimizers
    clip each replica's own.

    Args:
        learning_rate: Of the head.
        layer_decay: The factor, in (0, 1].
        **kwargs: Of `keras.optimizers.AdamW`.

    Source: https://arxiv.org/abs/2106.08254, section 3.1 (layer-wise decay).
    """

    def __init__(self, learning_rate, layer_decay: float = 1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.layer_decay = layer_decay

    def build(self, variables: list[keras.Variable]) -> None:
        # By themselves, not by names: Keras would search for a name in the whole path
        # of a variable on TensorFlow, in the last part of it elsewhere.
        self.exclude_from_weight_decay(
            [v for v in variables if any(part in v.name for part in NOT_DECAYED)]
        )
        scales = layer_scales(variables, self.layer_decay)
        pairs = zip(variables, scales, strict=True)
        self._scales = {self._var_key(variable): scale for variable, scale in pairs}
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = learning_rate * self._scales[self._var_key(variable)]
        if self._use_weight_decay(variable):
            pull = ops.cast(learning_rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * pull)
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables) -> None:
        """Done in `update_step`, where the variable's own learning rate is known."""

    def _clip_gradients(self, grads):
        replicas = tf.distribute.get_replica_context()
        if self.global_clipnorm is None or replicas.num_replicas_in_sync == 1:
            return super()._clip_gradients(grads)
        total = replicas.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        # Keras adds up what comes from here.
        count = replicas.num_replicas_in_sync
        return [grad / count for grad in super()._clip_gradients(total)]

    def get_config(self) -> dict:
        return super().get_config() | {"layer_decay": self.layer_decay}


def layer_scales(variables: list[keras.Variable], decay: float) -> list[float]:
    """Factor of each variable's learning rate: decay^(blocks between it and the head).

    Patches, tokens and positions stand before the first block; the final norm, the
    pooling and the head after the last one.
    """
    layers = [variable.path.split("/")[0] for variable in variables]
    blocks = {name: int(name.split("_")[1]) for name in layers if _in_block(name)}
    depth = max(blocks.values(), default=-1) + 1
    first = ("stem", "patches", "prefix_tokens", "positions")
    place = {name: 0 if name in first else depth + 1 for name in layers}
    place |= {name: block + 1 for name, block in blocks.items()}
    return [decay ** (depth + 1 - place[name]) for name in layers]


def make_optimizer(
    recipe: TrainingRecipe, steps: int, batch_size: int | None = None
) -> LayerwiseAdamW:
    """AdamW with warm-up, cosine and no decay of biases, norms, tokens, positions.

    Args:
        recipe: Says how.
        steps: Number of steps of the whole training.
        batch_size: Images a step; the learning rate is in proportion to it. That of
            the recipe if `None`.
    """
    peak = recipe.peak_rate(batch_size or recipe.batch_size)
    warmup = round(recipe.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak,
        decay_steps=max(steps - warmup, 1),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    return LayerwiseAdamW(
        schedule,
        recipe.layer_decay,
        weight_decay=recipe.weight_decay,
        use_ema=recipe.ema_momentum > 0,
        # Keras averages after every batch, also where it only adds up gradients.
        ema_momentum=recipe.ema_momentum ** (1 / recipe.accumulation),
        global_clipnorm=recipe.clip_norm or None,
        gradient_accumulation_steps=(
            recipe.accumulation if recipe.accumulation > 1 else None
        ),
    )


def _in_block(name: str) -> bool:
    return name.startswith("block_") and name.split("_")[1].isdecimal()
