"""Sizes and switches of a Vision Transformer: frozen, checked, standard library only."""

import dataclasses
import math
from typing import Any, Self

from keras_vit.config.checks import (
    check_choice,
    check_class_names,
    check_integer,
    check_positive,
    check_rate,
    check_sequence,
)
from keras_vit.config.preprocessing import Preprocessing
from keras_vit.config.reductions import Reduction, check_reductions, follow
from keras_vit.config.variants import VARIANTS

POSITIONS = ("learned", "sinusoidal_1d", "sincos_2d")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swiglu")
HEAD_ACTIVATIONS = ("gelu", "tanh")
POOLS = ("token", "mean", "token_and_mean", "map", "sequence")
OUTPUTS = ("logits", "softmax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(Preprocessing):
    """All that `build_vit` needs to know. Fields of `Preprocessing` come first.

    Args:
        patch_size: Side of a square patch in pixels.
        num_classes: Number of classes.
        width: Width d of every token.
        depth: Number of encoder blocks.
        num_heads: Number of attention heads; each is `width / num_heads` wide.
        mlp_dim: Width m of the feed-forward's hidden layer.
        mean: Mean of each channel, for pixels scaled to 0..1; a number counts for all.
        std: Standard deviation of each channel, likewise.
        stem: Filters of the 3x3 convolutions before the patches, each followed by ReLU
            and a max pooling that halves the sides; `()` for none.
        positions: `"learned"`, `"sinusoidal_1d"` or `"sincos_2d"`.
        positions_cover_prefix: Whether class, distillation and register tokens get a
            position too. `None` means yes where there are such tokens and the
            positions are not `"sincos_2d"`, which are those of patches only.
        class_token: Whether a class token is prepended.
        distillation_token: Whether a distillation token with a head of its own follows
            it; the model's output is the mean of the two heads' logits.
        num_registers: Number of register tokens.
        qk_norm: Whether queries and keys are normalised in each head.
        activation: `"relu"`, `"gelu"` (exact), `"gelu_tanh"` or `"swiglu"`.
        norm_epsilon: Added to the variance in every LayerNorm.
        dropout: Dropout rate after the positions, the attention and in the feed-forward.
        attention_dropout: Dropout rate of the attention weights.
        drop_path: Drop path rate of the last block; it grows linearly from 0 in the
            first.
        patch_dropout: Part of the patch tokens left out in training.
        layer_scale: First value of LayerScale, or `None` for no LayerScale.
        reduce_tokens: Where the model goes on with fewer tokens, behind the attention
            of a block, from 0: `(3, "prune", 0.7)` keeps the 0.7 of the patches that
            attention takes most from and fuses the others into one token,
            `(3, "pool", 2)` averages squares of 2 x 2 patches. In short, `0.7` prunes
            in three blocks and `"pool"` pools before the middle.
        pool: `"token"`, `"mean"` (patch tokens only), `"token_and_mean"` (the one
            after the other, 2 d wide), `"map"` (multi-head attention pooling) or
            `"sequence"`.
        norm_after_pool: Whether the final LayerNorm follows the pooling.
        head_hidden: Widths of dense layers before the last one.
        head_activation: Their activation, `"gelu"` or `"tanh"` (`pre_logits` of models
            that were pretrained on ImageNet-21k).
        head_dropout: Dropout rate before each dense layer of the head.
        head_output: `"logits"` or `"softmax"`.
        class_names: Name of each class, or `()`.

    Raises:
        ValueError: If a field is out of its range or two contradict each other.
    """

    patch_size: int
    num_classes: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5
    stem: tuple[int, ...] = ()
    positions: str = "learned"
    positions_cover_prefix: bool | None = None
    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    qk_norm: bool = False
    activation: str = "gelu"
    # 1e-6 as in the published weights; Keras' own default is 1e-3.
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    patch_dropout: float = 0.0
    layer_scale: float | None = None
    reduce_tokens: tuple[tuple[int, str, float], ...] | float | str = ()
    pool: str = "token"
    norm_after_pool: bool = False
    head_hidden: tuple[int, ...] = ()
    head_activation: str = "gelu"
    head_dropout: float = 0.0
    head_output: str = "logits"
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_variant(cls, variant: str, **fields: Any) -> Self:
        """The configuration of a published size, with any field changed by keyword.

        Args:
            variant: Size and patch side in pixels: `"Ti/16"`.
            **fields: Fields of `ViTConfig`; `image_size` and `num_classes` are needed.

        Raises:
            ValueError: If the size is unknown or the patch side is not a number.
        """
        size, _, patch_size = variant.partition("/")
        check_choice("variant (the part before '/')", size, VARIANTS)
        if not patch_size.isdecimal():
            raise ValueError(
                "variant must end in the patch side in pixels, such as "
                f"'{size}/16'. Received: {variant!r}"
            )
        missing = {"image_size", "num_classes"} - fields.keys()
        unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}
        if missing or unknown:
            raise ValueError(
                "from_variant needs image_size and num_classes, and takes the fields "
                f"of ViTConfig. Missing: {sorted(missing)}, unknown: {sorted(unknown)}"
            )
        return cls(**{**VARIANTS[size], "patch_size": int(patch_size), **fields})

    def __post_init__(self):
        super().__post_init__()
        for name in ("stem", "head_hidden", "class_names"):
            object.__setattr__(self, name, check_sequence(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name))
        self._check_ranges()
        if self.positions_cover_prefix is None:
            covers = self.num_prefix_tokens > 0 and self.positions != "sincos_2d"
            object.__setattr__(self, "positions_cover_prefix", covers)
        self._check_grid()
        self._check_tokens()
        self._check_reductions()

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patch tokens."""
        return self.class_token + self.distillation_token + self.num_registers

    @property
    def num_prefix_positions(self) -> int:
        """Number of positions before those of the patches."""
        return self.num_prefix_tokens if self.positions_cover_prefix else 0

    @property
    def pools_class_token(self) -> bool:
        """Whether the classifier reads the class token."""
        return self.pool in ("token", "token_and_mean")

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along the height and along the width."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Number of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """`reduce_tokens`, each with the tokens that it starts from."""
        return tuple(follow(self.reduce_tokens, self.grid))

    @property
    def fused_share(self) -> float:
        """Part of the patches that the fused token of the last block stands for."""
        if not self.reductions:
            return 0.0
        last = self.reductions[-1]
        return last.fuses / (last.fuses + last.num_kept)

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Number of tokens that each block's attention reads."""
        counts, patches = [], self.num_patches
        reductions = {it.block: it for it in self.reductions}
        for block in range(self.depth):
            counts.append(self.num_prefix_tokens + patches)
            if block in reductions:
                patches = reductions[block].num_left
        return tuple(counts)

    def _per_channel(self, name: str) -> tuple[float, ...]:
        value = getattr(self, name)
        if not isinstance(value, (tuple, list)):
            value = (value,) * self.channels
        try:
            value = tuple(float(number) for number in value)
        except (TypeError, ValueError):
            value = ()
        if len(value) != self.channels or not all(map(math.isfinite, value)):
            raise ValueError(
                f"{name} must be a number or one number a channel. Received: "
                f"{name}={getattr(self, name)}, channels={self.channels}"
            )
        return value

    def _check_ranges(self) -> None:
        sizes = ("patch_size", "num_classes", "width", "depth", "num_heads", "mlp_dim")
        for name, bound in (dict.fromkeys(sizes, 1) | {"num_registers": 0}).items():
            number = check_integer(name, getattr(self, name), bound)
            object.__setattr__(self, name, number)
        for name in ("stem", "head_hidden"):
            widths = tuple(
                check_integer(name, width, 1) for width in getattr(self, name)
            )
            object.__setattr__(self, name, widths)
        rates = ("dropout", "attention_dropout", "drop_path", "patch_dropout")
        for name in (*rates, "head_dropout"):
            check_rate(name, getattr(self, name))
        check_choice("positions", self.positions, POSITIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("head_activation", self.head_activation, HEAD_ACTIVATIONS)
        check_choice("pool", self.pool, POOLS)
        check_choice("head_output", self.head_output, OUTPUTS)
        check_positive("norm_epsilon", self.norm_epsilon)
        if self.layer_scale is not None:
            check_positive("layer_scale", self.layer_scale)
        switches = ("class_token", "distillation_token", "qk_norm", "norm_after_pool")
        for name in switches:
            check_choice(name, getattr(self, name), (False, True))
        if not all(std > 0 for std in self.std):
            raise ValueError(f"std must be positive. Received: {self.std!r}")
        check_class_names(self.class_names, self.num_classes)

    def _check_grid(self) -> None:
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(
                "patch_size must divide image_size. Received: "
                f"patch_size={self.patch_size}, image_size={self.image_size}"
            )
        if self.patch_size % 2 ** len(self.stem):
            raise ValueError(
                "patch_size must be a multiple of 2 for each convolution of the stem, "
                f"since each halves the sides. Received: patch_size={self.patch_size}, "
                f"stem={self.stem}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                "num_heads must divide width. Received: "
                f"num_heads={self.num_heads}, width={self.width}"
            )
        divisor = {"sinusoidal_1d": 2, "sincos_2d": 4}.get(self.positions, 1)
        if self.width % divisor:
            raise ValueError(
                f"{self.positions} positions need a width that {divisor} divides. "
                f"Received: width={self.width}"
            )

    def _check_tokens(self) -> None:
        if self.pools_class_token and not self.class_token:
            raise ValueError(f"pool={self.pool!r} needs class_token=True.")
        if self.pool == "token_and_mean" and self.norm_after_pool:
            raise ValueError(
                "pool='token_and_mean' needs norm_after_pool=False: the norm is of one "
                "token, not of two side by side."
            )
        if self.distillation_token and self.pool != "token":
            raise ValueError(
                "distillation_token needs pool='token': its head reads that token. "
                f"Received: pool={self.pool!r}"
            )
        if self.positions_cover_prefix and (
            self.positions == "sincos_2d" or not self.num_prefix_tokens
        ):
            raise ValueError(
                "positions_cover_prefix needs a class, distillation or register token "
                "and positions other than 'sincos_2d'. Received: "
                f"positions={self.positions!r}, prefix tokens={self.num_prefix_tokens}"
            )
        if self.drop_path and self.depth == 1:
            raise ValueError(
                "drop_path grows from 0 in the first block, so it needs depth >= 2. "
                f"Received: drop_path={self.drop_path}, depth=1"
            )

    def _check_reductions(self) -> None:
        checked = check_reductions(self.reduce_tokens, self.depth, self.grid)
        object.__setattr__(self, "reduce_tokens", checked)
        if self.patch_dropout and any(kind == "pool" for _, kind, _ in checked):
            raise ValueError(
                "'pool' in reduce_tokens needs all patches of the grid, so patch_dropout "
                f"must be 0. Received: patch_dropout={self.patch_dropout}"
            )
