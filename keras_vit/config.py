"""Sizes and switches of a Vision Transformer: frozen, checked, standard library only."""

import collections
import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any, Self

from keras_vit_device.tflite.contract import INTERPOLATIONS, LEAST_CROP, RESIZES

POSITIONS = ("learned", "sinusoidal_1d", "sincos_2d")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swiglu")
HEAD_ACTIVATIONS = ("gelu", "tanh")
POOLS = ("token", "mean", "token_and_mean", "map", "sequence")
OUTPUTS = ("logits", "softmax")

# Ti: https://arxiv.org/abs/2012.12877, table 1.  S, B, L, H: the same widths as in
# https://arxiv.org/abs/2010.11929, table 1, and https://arxiv.org/abs/2106.10270,
# table 2.  g: https://arxiv.org/abs/2304.07193, table 17; its MLP is SwiGLU.
# nano, micro and compact are this project's own, for images of 8 to 64 pixels a side;
# the convolution and the mean pool gained 2 to 4 points of top-1 there, in single runs.
# compact has two convolutions and two blocks, as CCT-2/3x2 does:
# https://arxiv.org/abs/2104.05704, table 1. compact3 has a third convolution, for
# photographs: it leaves as many patches of larger images.
_SMALL = {"stem": (32,), "class_token": False, "pool": "mean"}
_COMPACT = {**_SMALL, "stem": (32, 64)}
_COMPACT3 = {**_SMALL, "stem": (32, 64, 128)}
VARIANTS: dict[str, dict[str, Any]] = {
    "nano": dict(width=64, depth=4, num_heads=4, mlp_dim=256, **_SMALL),
    "micro": dict(width=96, depth=6, num_heads=6, mlp_dim=384, **_SMALL),
    "compact": dict(width=96, depth=2, num_heads=3, mlp_dim=384, **_COMPACT),
    "compact3": dict(width=96, depth=2, num_heads=3, mlp_dim=384, **_COMPACT3),
    "Ti": {"width": 192, "depth": 12, "num_heads": 3, "mlp_dim": 768},
    "S": {"width": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536},
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120},
    "g": {
        "width": 1536,
        "depth": 40,
        "num_heads": 24,
        "mlp_dim": 4096,
        "activation": "swiglu",
        "layer_scale": 1e-5,
    },
}


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises a `ValueError` that lists `choices`, the nearest to `value` first."""
    choices = list(choices)
    if value in choices:
        return
    choices = list(map(str, choices))
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    ordered = near + [choice for choice in choices if choice not in near]
    raise ValueError(f"{name} must be one of {', '.join(ordered)}. Received: {value!r}")


def _integer(name: str, value: Any, least: int) -> int:
    """`value` as a plain integer: NumPy's are welcome, booleans are not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} must be an integer >= {least}. Received: {value!r}")
    return number


def _check_positive(name: str, value: Any) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive. Received: {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sequence(name: str, value: Any) -> tuple:
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    if not listed:
        raise ValueError(f"{name} must be a list or a tuple. Received: {value!r}")
    return tuple(value)


def check_class_names(class_names: tuple[str, ...], num_classes: int) -> None:
    """Raises a `ValueError` unless there is one name a class, each its own, or none."""
    if class_names and len(class_names) != num_classes:
        raise ValueError(
            "class_names must name every class. Received: "
            f"{len(class_names)} names, num_classes={num_classes}"
        )
    for name in class_names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(
                f"class_names must be printable words on one line. Received: {name!r}"
            )
    counts = collections.Counter(class_names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"class_names must differ. Received twice: {twice}")


def check_rate(name: str, value: float) -> None:
    """Raises a `ValueError` unless `value` is in [0, 1)."""
    if not _is_number(value) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1). Received: {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What becomes of an image of any size before it is the input of a model.

    The image is resized to `image_size / crop` and the middle is kept: `"stretch"`
    ignores the image's proportions, `"crop"` keeps them and cuts off what is too long.
    Pixels stay in 0..255: their scaling is the model's first layer.

    Args:
        image_size: Height and width of the model's input in pixels; an integer is the
            side of a square.
        channels: 1 for grey, 3 for colour; NumPy arrays may have any number.
        resize: `"stretch"` or `"crop"`.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`; the last two average
            over all pixels that a smaller image covers (antialias).
        crop: Part of the resized image's side that is kept, in [0.01, 1].

    Raises:
        ValueError: If a field is out of its range.
    """

    image_size: int | tuple[int, int]
    channels: int = 3
    resize: str = "stretch"
    interpolation: str = "bilinear"
    crop: float = 1.0

    def __post_init__(self):
        size = self.image_size
        if not isinstance(size, (tuple, list)):
            size = (size, size)
        if len(size) != 2:
            raise ValueError(
                "image_size must be an integer or (height, width). "
                f"Received: {self.image_size!r}"
            )
        size = tuple(_integer("image_size", side, 1) for side in size)
        object.__setattr__(self, "image_size", size)
        channels = _integer("channels", self.channels, 1)
        object.__setattr__(self, "channels", channels)
        check_choice("resize", self.resize, RESIZES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        if not _is_number(self.crop) or not LEAST_CROP <= self.crop <= 1.0:
            raise ValueError(
                f"crop must be in [{LEAST_CROP}, 1]. Received: {self.crop!r}"
            )

    @property
    def rule(self) -> dict[str, Any]:
        """These fields alone, as keywords of `keras_vit_device.pixels.fit_image`."""
        names = (field.name for field in dataclasses.fields(Preprocessing))
        return {name: getattr(self, name) for name in names}


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
            object.__setattr__(self, name, _sequence(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name))
        self._check_ranges()
        if self.positions_cover_prefix is None:
            covers = self.num_prefix_tokens > 0 and self.positions != "sincos_2d"
            object.__setattr__(self, "positions_cover_prefix", covers)
        self._check_grid()
        self._check_tokens()

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
            number = _integer(name, getattr(self, name), bound)
            object.__setattr__(self, name, number)
        for name in ("stem", "head_hidden"):
            widths = tuple(_integer(name, width, 1) for width in getattr(self, name))
            object.__setattr__(self, name, widths)
        rates = ("dropout", "attention_dropout", "drop_path", "patch_dropout")
        for name in (*rates, "head_dropout"):
            check_rate(name, getattr(self, name))
        check_choice("positions", self.positions, POSITIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("head_activation", self.head_activation, HEAD_ACTIVATIONS)
        check_choice("pool", self.pool, POOLS)
        check_choice("head_output", self.head_output, OUTPUTS)
        _check_positive("norm_epsilon", self.norm_epsilon)
        if self.layer_scale is not None:
            _check_positive("layer_scale", self.layer_scale)
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
