"""Ways in which a model may compute less, with the weights that it has."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Self

import keras

from keras_vit.config import ViTConfig
from keras_vit.reuse import (
    config_of,
    with_fewer_tokens,
    with_image_size,
    with_patch_size,
)

# Parts of the patches along a side that a smaller image has.
_SIDES = (6 / 7, 5 / 7, 4 / 7, 3 / 7)
_KEEPS = (0.7, 0.5)
# What is no reduction in itself, but the name of a model as it came.
AS_IT_IS = "as it is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute less; what is `None` stays as it is.

    Attributes:
        image_size: Height and width of smaller images.
        patch_size: Side of larger patches.
        reduce_tokens: As of `ViTConfig`.
    """

    image_size: tuple[int, int] | None = None
    patch_size: int | None = None
    reduce_tokens: tuple[tuple[int, str, float], ...] | None = None

    @property
    def kind(self) -> str:
        """`"size"`, `"patch"`, `"pool"` or `"prune"`, joined where there are several."""
        kinds = {
            "size": self.image_size,
            "patch": self.patch_size,
            **{kind: True for _, kind, _ in self.reduce_tokens or ()},
        }
        return "+".join(kind for kind, given in kinds.items() if given)

    @property
    def name(self) -> str:
        """Of files and folders: `"pool-2-x-2-in-block-1"`."""
        return "-".join(str(self).replace(",", "").split())

    def __str__(self) -> str:
        """In the words of a table: `"20 x 20 px, keep 0.7 in blocks 2, 3"`."""
        words = []
        if self.image_size:
            words.append(f"{self.image_size[0]} x {self.image_size[1]} px")
        if self.patch_size:
            words.append(f"patches of {self.patch_size} px")
        amounts: dict[str, list[int]] = {}
        for block, kind, amount in self.reduce_tokens or ():
            word = (
                f"keep {amount:g}" if kind == "prune" else f"pool {amount} x {amount}"
            )
            amounts.setdefault(word, []).append(block + 1)
        for word, blocks in amounts.items():
            plural = "s" if len(blocks) > 1 else ""
            words.append(f"{word} in block{plural} {', '.join(map(str, blocks))}")
        return ", ".join(words) or AS_IT_IS

    def config(self, config: ViTConfig) -> ViTConfig:
        """The configuration of such a model.

        Raises:
            ValueError: If there is none: a grid that can't be pooled, for one.
        """
        given = {name: it for name, it in vars(self).items() if it is not None}
        return dataclasses.replace(config, **given)

    def apply(self, model: keras.Model) -> keras.Model:
        """The model with this changed and its own weights, resized where they must be."""
        config = config_of(model)
        self.config(config)  # the whole is possible, the parts on the way may not be
        if self.image_size or self.patch_size:
            model = with_fewer_tokens(model, ())
        if self.image_size:
            model = with_image_size(model, self.image_size)
        if self.patch_size:
            model = with_patch_size(model, self.patch_size)
        steps = self.reduce_tokens
        return with_fewer_tokens(
            model, config.reduce_tokens if steps is None else steps
        )

    def beside(self, other: Self) -> Self:
        """Both together; what this one says comes first."""
        mine = {name: it for name, it in vars(self).items() if it is not None}
        return dataclasses.replace(other, **mine)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """From JSON."""
        size, steps = fields["image_size"], fields["reduce_tokens"]
        return cls(
            image_size=size and tuple(size),
            patch_size=fields["patch_size"],
            reduce_tokens=steps if steps is None else tuple(map(tuple, steps)),
        )


def find_variants(config: ViTConfig) -> list[Variant]:
    """What a model of this configuration may be, each computing less than it."""
    found = dict.fromkeys(_candidates(config))
    return [it for it in found if _computes_less(it, config)]


def _candidates(config: ViTConfig) -> Iterator[Variant]:
    patch = config.patch_size
    for part in _SIDES:
        sides = (max(2, round(part * side)) * patch for side in config.grid)
        yield Variant(image_size=tuple(sides))
    for side in range(patch + 1, 2 * patch + 1):
        yield Variant(patch_size=side)
    for block in dict.fromkeys((config.depth // 2 - 1, config.depth // 4, 0)):
        yield Variant(reduce_tokens=((block, "pool", 2),))
    quarters = {config.depth * part // 4 for part in (1, 2, 3)}
    for blocks in (quarters, {0, *(block - config.depth // 4 for block in quarters)}):
        for keep in _KEEPS:
            steps = (
                (it, "prune", keep) for it in sorted(blocks) if it < config.depth - 1
            )
            yield Variant(reduce_tokens=tuple(steps))


def _computes_less(variant: Variant, config: ViTConfig) -> bool:
    try:
        return cost(variant.config(config)) < 0.97 * cost(config)
    except ValueError:  # there is no such model
        return False


def cost(config: ViTConfig) -> float:
    """Multiplications of all blocks, for one image: what they are compared by."""
    d, m = config.width, config.mlp_dim
    gate = config.activation == "swiglu"
    dense = 4 * d * d + (2 + gate) * d * m
    return math.fsum(n * dense + 2 * n * n * d for n in config.token_counts)
