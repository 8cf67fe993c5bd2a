"""A trained model as an inference graph: plain arrays, read from the Keras model.

`rewrites.py` changes them, never the function; `forward.py` computes it.

Axes as in `keras_vit.layers`, without the batch: n tokens, d width, h heads, e width of
a head, m width of the feed-forward's hidden layer.
"""

import dataclasses
from typing import Self

import keras
import numpy as np

from keras_vit.config import Reduction, ViTConfig
from keras_vit.reuse import config_of

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Dense:
    """x W + b.  `kernel` `(inputs, units)`, `bias` `(units,)`."""

    kernel: Array
    bias: Array


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution; `kernel` `(rows, columns, channels, filters)`."""

    kernel: Array
    bias: Array


@dataclasses.dataclass(frozen=True)
class Norm:
    """gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta.

    Attributes:
        epsilon: Added to the variance.
        gamma: `(d,)`, or `None` for ones.
        beta: `(d,)`, or `None` for zeros.
        centred: Whether x has mean 0 already; then this is RMSNorm
            (https://arxiv.org/abs/1910.07467).
        shrink: What x is multiplied with before it is squared, epsilon with its square:
            the same norm, whose squares fit into 16-bit floats.
    """

    epsilon: float
    gamma: Array | None
    beta: Array | None
    centred: bool = False
    shrink: float = 1.0


@dataclasses.dataclass(frozen=True)
class Attention:
    """softmax(scale Q K^T) V, then the output's dense layer.

    Attributes:
        num_heads: Number of heads h.
        query: Dense layer that makes Q, or `None` if `scores` takes its place.
        key: Dense layer that makes K, or `None` likewise.
        value: Dense layer that makes V.
        output: Dense layer after the heads.
        query_norm: Norm of each head's queries, or `None`.
        key_norm: Norm of each head's keys, or `None`.
        scale: Factor of the scores; 1 if something else holds it.
        scores: Dense layer from tokens to the scores of one fixed query in each head.
        fused: Whether Q, K and V come out of one dense layer.
        lifted: Whether each query's weights are divided by the root of their largest,
            and what they give is multiplied by it.
    """

    num_heads: int
    query: Dense | None
    key: Dense | None
    value: Dense
    output: Dense
    query_norm: Norm | None
    key_norm: Norm | None
    scale: float
    scores: Dense | None = None
    fused: bool = False
    lifted: bool = False


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """f(x W1 + b1) W2 + b2; with `hidden_value` the SwiGLU of the layer of that name."""

    activation: str
    hidden: Dense
    hidden_value: Dense | None
    output: Dense


@dataclasses.dataclass(frozen=True)
class Branch:
    """x + scale f(norm(x)), f being attention or feed-forward.

    Attributes:
        name: Of the layer in the Keras model: `"block_03_mlp"`.
        norm: Norm that f reads through.
        layer: f.
        scale: LayerScale's gamma `(d,)`, or `None`.
        reduction: What makes fewer tokens of the sum, or `None`.
    """

    name: str
    norm: Norm
    layer: Attention | FeedForward
    scale: Array | None
    reduction: Reduction | None = None


# What the attention of a pool is called.
POOL_ATTENTION = "pool_attention"


@dataclasses.dataclass(frozen=True)
class Pool:
    """From tokens to one vector.

    Attributes:
        kind: `"token"`, `"mean"`, `"token_and_mean"`, `"map"` or `"sequence"`.
        importance: Dense layer of `"sequence"`.
        probe: The fixed query `(1, d)` of `"map"`; its attention, norm and feed-forward
            are the next three.
    """

    kind: str
    importance: Dense | None = None
    probe: Array | None = None
    attention: Attention | None = None
    norm: Norm | None = None
    mlp: FeedForward | None = None


@dataclasses.dataclass(frozen=True)
class Head:
    """Dense layers with GELU or tanh between, behind the norm that they read through.

    Attributes:
        token: Place of the token that it reads, where the pool is `"token"`.
        norm: Final norm.
        layers: Dense layers; the last one gives logits.
    """

    token: int
    norm: Norm
    layers: tuple[Dense, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Everything that the forward pass reads.

    Attributes:
        image_shape: (height, width, channels) of the image.
        mean: Subtracted from each channel of the pixels, or `None`.
        scale: Factor of each channel after that, or `None`.
        stem: Convolutions, each with ReLU and max pooling.
        patches: The patch projection.
        prefix: Class, distillation and register tokens `(prefix, d)`, maybe none.
        positions: Added to the patch tokens, and to the prefix tokens too if
            `positions_cover_prefix`.
        positions_cover_prefix: See above.
        branches: Attention, feed-forward, attention, ...
        norm_after_pool: Whether the heads' norms follow the pool.
        pool: From tokens to one vector.
        heads: One, or two with a distillation token; logits are the sum over them.
        by_class_token: Whether tokens are pruned by the class token's attention.
        fused_share: Part of the patches that the last token stands for in a mean.
        head_activation: Of the heads' hidden layers, `"gelu"` or `"tanh"`.
        read: (first, count) of the tokens that the head reads: what the last block
            computes. `None` for all of them.
        rewrites: Names of the rewrites that made this graph what it is.
    """

    image_shape: tuple[int, int, int]
    mean: Array | None
    scale: Array | None
    stem: tuple[Convolution, ...]
    patches: Convolution
    prefix: Array
    positions: Array
    positions_cover_prefix: bool
    branches: tuple[Branch, ...]
    norm_after_pool: bool
    pool: Pool
    heads: tuple[Head, ...]
    by_class_token: bool = False
    fused_share: float = 0.0
    head_activation: str = "gelu"
    read: tuple[int, int] | None = None
    rewrites: tuple[str, ...] = ()

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """What makes fewer tokens, in order."""
        return tuple(it.reduction for it in self.branches if it.reduction is not None)

    @property
    def prunings(self) -> tuple[Reduction, ...]:
        """Those that choose tokens by what an image shows."""
        return tuple(it for it in self.reductions if it.prunes)

    @property
    def num_patches(self) -> int:
        """Number of patch tokens of an image."""
        return len(self.positions) - len(self.prefix) * self.positions_cover_prefix

    @property
    def num_last_patches(self) -> int:
        """Number of tokens behind the prefix tokens that the last block reads."""
        if self.reductions:
            return self.reductions[-1].num_left
        return self.num_patches

    def replace(self, **changes) -> Self:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)


def read(model: keras.Model) -> Graph:
    """The inference graph of a model that `build_vit` made, not rewritten yet.

    Raises:
        ValueError: If `build_vit` did not make the model, or its pool is none of `Pool`.
    """
    config = config_of(model)
    layer = {layer.name: layer for layer in model.layers}
    scaling, tokens = layer["scaling"], layer.get("prefix_tokens")
    prefix = [_array(token)[0] for token in tokens.weights] if tokens else []
    branches = [
        _branch(f"block_{index:02d}_{kind}", layer)
        for index in range(config.depth)
        for kind in ("attention", "mlp")
    ]
    for step in config.reductions:
        at = 2 * step.block
        branches[at] = dataclasses.replace(branches[at], reduction=step)
    return Graph(
        image_shape=(*config.image_size, config.channels),
        mean=255.0 * np.array(scaling.mean),
        scale=1.0 / (255.0 * np.array(scaling.std)),
        stem=tuple(
            _convolution(it)
            for it in (layer["stem"].convolutions if config.stem else ())
        ),
        patches=_convolution(layer["patches"].projection),
        prefix=np.concatenate([np.zeros((0, config.width)), *prefix]),
        positions=np.asarray(layer["positions"].positions, np.float64)[0],
        positions_cover_prefix=config.positions_cover_prefix,
        branches=tuple(branches),
        norm_after_pool=config.norm_after_pool,
        pool=_pool(config, layer["pool"]),
        heads=_heads_of(config, layer),
        by_class_token=config.pools_class_token,
        fused_share=config.fused_share,
        head_activation=config.head_activation,
    )


def _array(weight) -> Array:
    return np.asarray(weight.numpy(), np.float64)


def _dense(dense) -> Dense:
    return Dense(_array(dense.kernel), _array(dense.bias))


def _convolution(convolution) -> Convolution:
    return Convolution(_array(convolution.kernel), _array(convolution.bias))


def _norm(norm) -> Norm:
    return Norm(norm.epsilon, _array(norm.gamma), _array(norm.beta))


def _attention(layer) -> Attention:
    norms = [layer.query_norm, layer.key_norm] if layer.qk_norm else []
    query_norm, key_norm = map(_norm, norms) if norms else (None, None)
    return Attention(
        num_heads=layer.num_heads,
        query=_dense(layer.query),
        key=_dense(layer.key),
        value=_dense(layer.value),
        output=_dense(layer.output_projection),
        query_norm=query_norm,
        key_norm=key_norm,
        scale=(layer.query.units // layer.num_heads) ** -0.5,
    )


def _mlp(layer) -> FeedForward:
    value = _dense(layer.hidden_value) if layer.activation == "swiglu" else None
    return FeedForward(
        layer.activation, _dense(layer.hidden), value, _dense(layer.output_projection)
    )


def _branch(name, layer) -> Branch:
    make = _attention if name.endswith("attention") else _mlp
    scale = layer.get(f"{name}_scale")
    return Branch(
        name,
        _norm(layer[f"{name}_norm"]),
        make(layer[name]),
        _array(scale.gamma) if scale else None,
    )


def _pool(config: ViTConfig, layer) -> Pool:
    if config.pool == "sequence":
        return Pool("sequence", importance=_dense(layer.importance))
    if config.pool == "map":
        return Pool(
            "map",
            probe=_array(layer.probe)[0],
            attention=_attention(layer.attention),
            norm=_norm(layer.norm),
            mlp=_mlp(layer.mlp),
        )
    if config.pool in ("token", "mean", "token_and_mean"):
        return Pool(config.pool)
    raise ValueError(f"No rewrite knows pool={config.pool!r}.")


def _heads_of(config: ViTConfig, layer) -> tuple[Head, ...]:
    suffixes = ("", "_distillation") if config.distillation_token else ("",)
    heads = []
    for index, suffix in enumerate(suffixes):
        norm = layer.get(f"final_norm{suffix}") or layer["final_norm"]
        head = layer[f"head{suffix}"]
        *hidden, last = map(_dense, (*head._hidden, head.logits))
        # Each head gives its part of the mean.
        part = Dense(last.kernel / len(suffixes), last.bias / len(suffixes))
        heads.append(Head(index, _norm(norm), (*hidden, part)))
    return tuple(heads)
