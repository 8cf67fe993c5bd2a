"""A trained model as an inference graph: plain arrays, and the sum that they stand for.

`read` takes the arrays out of a Keras model in float64. `rewrites.py` changes them, never
the function. `logits` is the forward pass of one image in TensorFlow operations that
TFLite has as builtins, of rank 4 and below, laid out for few TRANSPOSE and RESHAPE.

Axes as in `keras_vit.layers`, without the batch: n tokens, d width, h heads, e width of
a head, m width of the feed-forward's hidden layer.
"""

import dataclasses
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from keras_vit.config import ViTConfig
from keras_vit.model import config_of

Array = np.ndarray
# Last part of the name of a norm's output, before beta.
NORMED = "normed"


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
    """

    epsilon: float
    gamma: Array | None
    beta: Array | None
    centred: bool = False


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
    """

    name: str
    norm: Norm
    layer: Attention | FeedForward
    scale: Array | None


@dataclasses.dataclass(frozen=True)
class Pool:
    """From tokens to one vector.

    Attributes:
        kind: `"token"`, `"mean"`, `"map"` or `"sequence"`.
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
    """Dense layers with GELU between, behind the norm that they read through.

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
    read: tuple[int, int] | None = None
    rewrites: tuple[str, ...] = ()

    def replace(self, **changes) -> Self:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)


def read(model: keras.Model) -> Graph:
    """The inference graph of a model that `build_vit` made, not rewritten yet.

    Raises:
        ValueError: If `build_vit` did not make the model.
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
        positions=_positions(layer["positions"]),
        positions_cover_prefix=config.positions_cover_prefix,
        branches=tuple(branches),
        norm_after_pool=config.norm_after_pool,
        pool=_pool(config, layer["pool"]),
        heads=_heads_of(config, layer),
    )


def _array(weight) -> Array:
    return np.asarray(weight.numpy(), np.float64)


def _dense(dense) -> Dense:
    return Dense(_array(dense.kernel), _array(dense.bias))


def _convolution(convolution) -> Convolution:
    return Convolution(_array(convolution.kernel), _array(convolution.bias))


def _norm(norm) -> Norm:
    return Norm(norm.epsilon, _array(norm.gamma), _array(norm.beta))


def _positions(layer) -> Array:
    if layer.weights:
        return _array(layer.positions)[0]
    return np.asarray(layer._table, np.float64)[0]


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
    return Pool(config.pool)


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


def logits(graph: Graph, image: tf.Tensor) -> tf.Tensor:
    """One image `(1, height, width, c)`, pixels in 0..255 -> logits `(1, classes)`."""
    x = embed(graph, image)  # (n, d)
    *first, attention, mlp = graph.branches
    for branch in first:
        x = add_branch(x, branch)
    x = add_branch(x, attention, graph.read)
    x = add_branch(x, mlp)
    sums = [classify(x, graph, head, index) for index, head in enumerate(graph.heads)]
    return sums[0] if len(sums) == 1 else tf.add(*sums, name="sum_of_heads")


def embed(graph: Graph, image: tf.Tensor) -> tf.Tensor:
    """Pixels -> patch tokens with positions, after the prefix tokens."""
    if graph.mean is not None:
        image = tf.subtract(image, _constant(graph.mean), name="mean")
    if graph.scale is not None:
        image = tf.multiply(image, _constant(graph.scale), name="scaling")
    for index, convolution in enumerate(graph.stem):
        image = tf.nn.relu(_convolve(image, convolution, 1, f"stem_{index}"))
        image = tf.nn.max_pool2d(image, 3, 2, "SAME", name=f"stem_{index}_pool")
    side = graph.patches.kernel.shape[0]
    grid = _convolve(image, graph.patches, side, "patches")
    x = tf.reshape(grid, (-1, grid.shape[-1]))  # (n, d)
    positions, prefix = _constant(graph.positions), _constant(graph.prefix)
    if not graph.positions_cover_prefix:
        x = tf.add(x, positions, name="positions")
    if len(graph.prefix):
        x = tf.concat([prefix, x], axis=0, name="prefix_tokens")
    if graph.positions_cover_prefix:
        x = tf.add(x, positions, name="positions")
    return x


def add_branch(
    x: tf.Tensor, branch: Branch, read: tuple[int, int] | None = None
) -> tf.Tensor:
    """x + scale f(norm(x)); with `read` for those tokens only, the others as context."""
    normed = _normalize(x, branch.norm, f"{branch.name}_norm")
    if isinstance(branch.layer, FeedForward):
        y = _feed_forward(normed, branch.layer, branch.name)
    else:
        read_tokens = normed if read is None else _rows(normed, *read)
        y = _attend(read_tokens, normed, branch.layer, branch.name)
        x = x if read is None else _rows(x, *read)
    if branch.scale is not None:
        y = tf.multiply(y, _constant(branch.scale), name=f"{branch.name}_scale")
    return tf.add(x, y, name=f"{branch.name}_add")


def classify(x: tf.Tensor, graph: Graph, head: Head, index: int) -> tf.Tensor:
    """Tokens `(n, d)` -> this head's part `(1, classes)` of the logits."""
    suffix = "_distillation" if index else ""

    def norm(x):
        return _normalize(x, head.norm, f"final_norm{suffix}")

    if graph.pool.kind == "token":  # the norm of one token, not of all
        first = 0 if graph.read is None else graph.read[0]
        x = norm(_rows(x, head.token - first, 1))
    elif graph.norm_after_pool:
        x = norm(_pool_tokens(x, graph))
    else:
        x = _pool_tokens(norm(x), graph)
    *hidden, last = head.layers
    for number, dense in enumerate(hidden):
        x = tf.nn.gelu(_project(x, dense, f"head{suffix}_hidden_{number}"))
    return _project(x, last, f"head{suffix}_logits")


def _pool_tokens(x, graph):
    pool = graph.pool
    if pool.kind == "mean":
        first = len(graph.prefix) if graph.read is None else 0
        x = _rows(x, first, x.shape[0] - first)
        return tf.reduce_mean(x, axis=0, keepdims=True, name="pool")
    if pool.kind == "sequence":
        weights = _project(x, pool.importance, "pool_importance")  # (n, 1)
        weights = tf.nn.softmax(tf.reshape(weights, (1, 1, -1)), name="pool_weights")
        # Of rank 3: two dimensions would become FULLY_CONNECTED with moving weights.
        pooled = tf.matmul(weights, tf.reshape(x, (1, *x.shape)), name="pool_mix")
        return tf.reshape(pooled, (1, x.shape[-1]))
    pooled = _attend(_constant(pool.probe), x, pool.attention, "pool_attention")
    normed = _normalize(pooled, pool.norm, "pool_norm")
    return tf.add(pooled, _feed_forward(normed, pool.mlp, "pool_mlp"), name="pool_add")


def _attend(tokens, context, layer: Attention, name):
    """Concat(head_1 .. head_h) W_o: `(n_q, d)` from `(n_q, d)` and `(n, d)`."""
    if layer.scores is not None:
        (v,) = _heads(context, [layer.value], layer.num_heads, f"{name}_value")
        scores = _project(context, layer.scores, f"{name}_scores")  # (n, h)
        scores = tf.transpose(tf.reshape(scores, (1, *scores.shape)), (2, 0, 1))
    else:
        q, k, v = _queries_keys_values(tokens, context, layer, name)  # (h, n, e)
        if layer.query_norm:
            q = _normalize(q, layer.query_norm, f"{name}_query_norm")
            k = _normalize(k, layer.key_norm, f"{name}_key_norm")
        if layer.scale != 1.0:
            q = tf.multiply(q, _constant(layer.scale), name=f"{name}_scaling")
        scores = tf.matmul(q, k, transpose_b=True, name=f"{name}_scores")  # (h, n_q, n)
    weights = tf.nn.softmax(scores, name=f"{name}_weights")
    mixed = tf.matmul(weights, v, name=f"{name}_mix")  # (h, n_q, e)
    mixed = tf.transpose(mixed, (1, 0, 2), name=f"{name}_heads")
    mixed = tf.reshape(mixed, (mixed.shape[0], -1))  # (n_q, d)
    return _project(mixed, layer.output, f"{name}_output")


def _queries_keys_values(tokens, context, layer, name):
    parts = [layer.query, layer.key, layer.value]
    if not layer.fused:
        pairs = zip((tokens, context, context), parts, ("query", "key", "value"))
        return [
            _heads(x, [part], layer.num_heads, f"{name}_{kind}")[0]
            for x, part, kind in pairs
        ]
    if tokens is context:
        return _heads(context, parts, layer.num_heads, f"{name}_qkv")
    (q,) = _heads(tokens, parts[:1], layer.num_heads, f"{name}_query")
    return q, *_heads(context, parts[1:], layer.num_heads, f"{name}_kv")


def _heads(x, parts: list[Dense], num_heads, name):
    """Each part's product with x, as heads: `(h, n, e)`, with one TRANSPOSE for all."""
    dense = Dense(
        np.concatenate([part.kernel for part in parts], axis=1),
        np.concatenate([part.bias for part in parts]),
    )
    x = _project(x, dense, name)
    heads = len(parts) * num_heads
    x = tf.reshape(x, (x.shape[0], heads, x.shape[1] // heads))
    x = tf.transpose(x, (1, 0, 2), name=f"{name}_heads")
    return tf.split(x, len(parts), name=f"{name}_split") if len(parts) > 1 else [x]


def _feed_forward(x, layer: FeedForward, name):
    hidden = _project(x, layer.hidden, f"{name}_hidden")  # (n, m)
    if layer.hidden_value is not None:
        gate = tf.multiply(hidden, tf.sigmoid(hidden), name=f"{name}_silu")
        value = _project(x, layer.hidden_value, f"{name}_hidden_value")
        hidden = tf.multiply(gate, value, name=f"{name}_gated")
    elif layer.activation == "relu":
        hidden = tf.nn.relu(hidden)
    else:
        hidden = tf.nn.gelu(hidden, layer.activation == "gelu_tanh", f"{name}_gelu")
    return _project(hidden, layer.output, f"{name}_output")


def _normalize(x, norm: Norm, name):
    with tf.name_scope(name):
        if not norm.centred:
            x = tf.subtract(x, tf.reduce_mean(x, axis=-1, keepdims=True))
        variance = tf.reduce_mean(tf.multiply(x, x), axis=-1, keepdims=True)
        deviation = tf.math.rsqrt(tf.add(variance, norm.epsilon))
        if norm.gamma is not None:
            # First, since the converter folds a constant that meets a dense layer.
            x = tf.multiply(x, _constant(norm.gamma), name="gamma")
        x = tf.multiply(x, deviation, name=NORMED)
        if norm.beta is not None:
            x = tf.add(x, _constant(norm.beta), name="beta")
    return x


def _project(x, dense: Dense, name):
    product = tf.matmul(x, _constant(dense.kernel), name=name)
    return tf.nn.bias_add(product, _constant(dense.bias), name=f"{name}_bias")


def _convolve(image, convolution: Convolution, stride, name):
    padding = "SAME" if stride == 1 else "VALID"
    kernel = _constant(convolution.kernel)
    product = tf.nn.conv2d(image, kernel, stride, padding, name=name)
    return tf.nn.bias_add(product, _constant(convolution.bias), name=f"{name}_bias")


def _rows(x, first, count):
    if (first, count) == (0, x.shape[0]):
        return x
    return tf.slice(x, (first, 0), (count, x.shape[1]))


def _constant(array) -> tf.Tensor:
    return tf.constant(np.asarray(array), tf.float32)
