"""What a checkpoint's weights show of training that they never had."""

from collections.abc import Mapping

import numpy as np

from keras_vit.config import ViTConfig

_WANTS = "wants training (keras-vit train --from MODEL.keras)"


def signs_of_no_training(
    weights: Mapping[str, np.ndarray], config: ViTConfig
) -> list[str]:
    """What a user should know of weights that answer nothing yet, a line each.

    Args:
        weights: By their path in the model; a new head's are not among them.
        config: Of the model.
    """
    found = [_of_head(weights, config)]
    norms = {it: w for it, w in weights.items() if it.endswith(("gamma", "beta"))}
    # LayerScale has a gamma too, but no beta.
    norms = {it: w for it, w in norms.items() if "_scale/" not in it}
    if all((w == it.endswith("gamma")).all() for it, w in norms.items()):
        found.append(
            "all norms are 1 and 0, as before the first step of training: the weights "
            "look random"
        )
    positions = weights.get("positions/positions")
    if positions is not None and not positions.any():
        found.append("the positions are all zeros: the model can't tell patches apart")
    return [line for line in found if line]


def _of_head(weights: Mapping[str, np.ndarray], config: ViTConfig) -> str:
    kernels = [w for it, w in weights.items() if it.endswith("/logits/kernel")]
    if not kernels:
        return (
            f"the head is new, all zeros, for {config.num_classes} classes: it answers "
            f"every class alike and {_WANTS}"
        )
    if not any(kernel.any() for kernel in kernels):
        what = "is zeros"
    elif config.num_classes > 1 and not any(np.ptp(it, axis=1).any() for it in kernels):
        what = "has the same weights for every class"
    else:
        return ""
    biases = [w for it, w in weights.items() if it.endswith("/logits/bias")]
    alike = not any(np.ptp(bias) for bias in biases)
    return (
        f"the head {what}: it answers every {'class' if alike else 'image'} alike and "
        f"{_WANTS}"
    )
