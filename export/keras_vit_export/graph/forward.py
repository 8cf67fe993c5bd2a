"""The forward pass of an inference graph, in TensorFlow operations, for one image.

All of them are builtins of TFLite, of rank 4 and below, laid out for few TRANSPOSE and
RESHAPE. Names of operations become names of the file's tensors: recipes match them.

Every accelerator gets the same graph, so nothing rests on how one of them reads a shape:
tokens are `(1, n, d)` and heads `(1, h, n, e)`, a batch of one image, and a constant of
an elementwise operation has the rank of what it meets (`gpu/pitfalls.py` says why).
"""

import numpy as np
import tensorflow as tf

from keras_vit_export.graph.fewer_tokens import reduce_tokens
from keras_vit_export.graph.inference import (
    POOL_ATTENTION,
    Attention,
    Branch,
    Convolution,
    Dense,
    FeedForward,
    Graph,
    Head,
    Norm,
)
from keras_vit_export.graph.tensors import constant, meeting, rows

# Last part of the name of a norm's output, before beta.
NORMED = "normed"
# What follows an attention's name where its weights meet its values.
MIX = "_mix"


def logits(graph: Graph, image: tf.Tensor) -> tf.Tensor:
    """One image `(1, height, width, c)`, pixels in 0..255 -> logits `(1, classes)`."""
    x = embed(graph, image)  # (1, n, d)
    *first, attention, mlp = graph.branches
    for branch in first:
        x, weights = add_branch(x, branch)
        if branch.reduction is not None:
            x = reduce_tokens(x, weights, branch.reduction, graph)
    x, _ = add_branch(x, attention, graph.read)
    x, _ = add_branch(x, mlp)
    sums = [classify(x, graph, head, index) for index, head in enumerate(graph.heads)]
    return sums[0] if len(sums) == 1 else tf.add(*sums, name="sum_of_heads")


def embed(graph: Graph, image: tf.Tensor) -> tf.Tensor:
    """Pixels -> patch tokens with positions, after the prefix tokens."""
    if graph.mean is not None:
        image = tf.subtract(image, meeting(image, graph.mean), name="mean")
    if graph.scale is not None:
        image = tf.multiply(image, meeting(image, graph.scale), name="scaling")
    for index, convolution in enumerate(graph.stem):
        image = tf.nn.relu(_convolve(image, convolution, 1, f"stem_{index}"))
        image = tf.nn.max_pool2d(image, 3, 2, "SAME", name=f"stem_{index}_pool")
    side = graph.patches.kernel.shape[0]
    grid = _convolve(image, graph.patches, side, "patches")
    x = tf.reshape(grid, (1, -1, grid.shape[-1]))  # (1, n, d)
    if not graph.positions_cover_prefix:
        x = tf.add(x, meeting(x, graph.positions), name="positions")
    if len(graph.prefix):
        prefix = meeting(x, graph.prefix)
        x = tf.concat([prefix, x], axis=1, name="prefix_tokens")
    if graph.positions_cover_prefix:
        x = tf.add(x, meeting(x, graph.positions), name="positions")
    return x


def add_branch(
    x: tf.Tensor, branch: Branch, read: tuple[int, int] | None = None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """x + scale f(norm(x)), and attention's weights `(1, h, n_q, n)` if f is that.

    With `read` for those tokens only, the others as context.
    """
    normed = _normalize(x, branch.norm, f"{branch.name}_norm")
    if isinstance(branch.layer, FeedForward):
        y, weights = _feed_forward(normed, branch.layer, branch.name), None
    else:
        read_tokens = normed if read is None else rows(normed, *read)
        y, weights = _attend(read_tokens, normed, branch.layer, branch.name)
        x = x if read is None else rows(x, *read)
    if branch.scale is not None:
        y = tf.multiply(y, meeting(y, branch.scale), name=f"{branch.name}_scale")
    return tf.add(x, y, name=f"{branch.name}_add"), weights


def classify(x: tf.Tensor, graph: Graph, head: Head, index: int) -> tf.Tensor:
    """Tokens `(1, n, d)` -> this head's part `(1, classes)` of the logits."""
    suffix = "_distillation" if index else ""

    def norm(x):
        return _normalize(x, head.norm, f"final_norm{suffix}")

    if graph.pool.kind == "token":  # the norm of one token, not of all
        first = 0 if graph.read is None else graph.read[0]
        x = norm(rows(x, head.token - first, 1))
    elif graph.norm_after_pool:
        x = norm(_pool_tokens(x, graph))
    else:
        x = _pool_tokens(norm(x), graph)
    x = tf.reshape(x, (1, x.shape[-1]))
    activation = tf.tanh if graph.head_activation == "tanh" else tf.nn.gelu
    *hidden, last = head.layers
    for number, dense in enumerate(hidden):
        x = activation(_project(x, dense, f"head{suffix}_hidden_{number}"))
    return _project(x, last, f"head{suffix}_logits")


def _pool_tokens(x, graph):
    """`(1, n, d)` -> `(1, 1, d)`, or twice as wide for `"token_and_mean"`."""
    pool = graph.pool
    if pool.kind in ("mean", "token_and_mean"):
        first = len(graph.prefix) if graph.read is None else 0
        mean = _mean(rows(x, first, x.shape[1] - first), graph.fused_share)
        if pool.kind == "mean":
            return mean
        return tf.concat([rows(x, 0, 1), mean], axis=2, name="pool_both")
    if pool.kind == "sequence":
        weights = _project(x, pool.importance, "pool_importance")  # (1, n, 1)
        weights = tf.reshape(weights, (1, 1, 1, -1))
        weights = tf.nn.softmax(weights, name="pool_weights")
        # Of rank 4, for a RESHAPE between the product and the norm that may follow.
        mixed = tf.matmul(weights, tf.expand_dims(x, 1), name="pool_mix")
        return tf.reshape(mixed, (1, 1, x.shape[2]))
    # "map": `inference.read` refuses all others.
    probe = constant(pool.probe[None])
    pooled, _ = _attend(probe, x, pool.attention, POOL_ATTENTION)
    normed = _normalize(pooled, pool.norm, "pool_norm")
    return tf.add(pooled, _feed_forward(normed, pool.mlp, "pool_mlp"), name="pool_add")


def _mean(patches, fused_share):
    if not fused_share:
        return tf.reduce_mean(patches, axis=1, keepdims=True, name="pool")
    count = patches.shape[1] - 1
    kept = tf.reduce_mean(rows(patches, 0, count), axis=1, keepdims=True)
    kept = tf.multiply(kept, meeting(kept, 1.0 - fused_share), name="pool_kept")
    fused = rows(patches, count, 1)
    fused = tf.multiply(fused, meeting(fused, fused_share), name="pool_fused")
    return tf.add(kept, fused, name="pool")


def _attend(tokens, context, layer: Attention, name):
    """Concat(head_1 .. head_h) W_o: `(1, n_q, d)` from `(1, n_q, d)`, `(1, n, d)`.

    And the attention weights `(1, h, n_q, n)`.
    """
    if layer.scores is not None:
        (v,) = _heads(context, [layer.value], layer.num_heads, f"{name}_value")
        scores = _project(context, layer.scores, f"{name}_scores")  # (1, n, h)
        scores = tf.transpose(tf.expand_dims(scores, 1), (0, 3, 1, 2))  # (1, h, 1, n)
    else:
        q, k, v = _queries_keys_values(tokens, context, layer, name)  # (1, h, n, e)
        if layer.query_norm:
            q = _normalize(q, layer.query_norm, f"{name}_query_norm")
            k = _normalize(k, layer.key_norm, f"{name}_key_norm")
        if layer.scale != 1.0:
            q = tf.multiply(q, meeting(q, layer.scale), name=f"{name}_scaling")
        scores = tf.matmul(q, k, transpose_b=True, name=f"{name}_scores")
    weights = tf.nn.softmax(scores, name=f"{name}_weights")  # (1, h, n_q, n)
    mixing = weights
    if layer.lifted:
        largest = tf.reduce_max(weights, axis=-1, keepdims=True, name=f"{name}_largest")
        root = tf.sqrt(largest, name=f"{name}_root")  # (1, h, n_q, 1)
        mixing = tf.divide(weights, root, name=f"{name}_lifted")
    mixed = tf.matmul(mixing, v, name=f"{name}{MIX}")  # (1, h, n_q, e)
    mixed = tf.transpose(mixed, (0, 2, 1, 3), name=f"{name}_heads")
    if layer.lifted:
        # Not before, as some GPUs misread what meets a product. The converter would
        # bring it there if both were turned by the same axes.
        root = tf.transpose(root, (3, 2, 1, 0), name=f"{name}_root_heads")
        mixed = tf.multiply(mixed, root, name=f"{name}_lowered")
    mixed = tf.reshape(mixed, (1, mixed.shape[1], -1))  # (1, n_q, d)
    return _project(mixed, layer.output, f"{name}_output"), weights


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
    """Each part's product with x, as heads `(1, h, n, e)`: one TRANSPOSE for all."""
    dense = Dense(
        np.concatenate([part.kernel for part in parts], axis=1),
        np.concatenate([part.bias for part in parts]),
    )
    x = _project(x, dense, name)
    heads = len(parts) * num_heads
    x = tf.reshape(x, (1, x.shape[1], heads, x.shape[2] // heads))
    x = tf.transpose(x, (0, 2, 1, 3), name=f"{name}_heads")
    return tf.split(x, len(parts), 1, name=f"{name}_split") if len(parts) > 1 else [x]


def _feed_forward(x, layer: FeedForward, name):
    hidden = _project(x, layer.hidden, f"{name}_hidden")  # (1, n, m)
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
        if norm.shrink != 1.0:
            x = tf.multiply(x, meeting(x, norm.shrink), name="shrunk")
        variance = tf.reduce_mean(tf.multiply(x, x), axis=-1, keepdims=True)
        epsilon = meeting(variance, norm.epsilon * norm.shrink**2)
        deviation = tf.math.rsqrt(tf.add(variance, epsilon))
        if norm.gamma is not None:
            # First, since the converter folds a constant that meets a dense layer.
            x = tf.multiply(x, meeting(x, norm.gamma), name="gamma")
        x = tf.multiply(x, deviation, name=NORMED)
        if norm.beta is not None:
            x = tf.add(x, meeting(x, norm.beta), name="beta")
    return x


def _project(x, dense: Dense, name):
    product = tf.matmul(x, constant(dense.kernel), name=name)
    return tf.nn.bias_add(product, constant(dense.bias), name=f"{name}_bias")


def _convolve(image, convolution: Convolution, stride, name):
    padding = "SAME" if stride == 1 else "VALID"
    kernel = constant(convolution.kernel)
    product = tf.nn.conv2d(image, kernel, stride, padding, name=name)
    return tf.nn.bias_add(product, constant(convolution.bias), name=f"{name}_bias")
