"""Fewer tokens in the forward pass: `layers.PruneTokens` and `layers.PoolTokens`."""

import tensorflow as tf

from keras_vit.config import Reduction
from keras_vit_export.graph.inference import Graph
from keras_vit_export.graph.tensors import meeting, rows

# The second output of the operation that orders patches: their numbers.
ORDER = "order1"


def reduce_tokens(
    x: tf.Tensor, weights: tf.Tensor, step: Reduction, graph: Graph
) -> tf.Tensor:
    """Fewer tokens `(1, n, d)`, by attention's weights `(1, h, n, n)` or by places."""
    if step.amount == 1.0:
        return x
    prefix = len(graph.prefix)
    with tf.name_scope(step.name):
        first, patches = rows(x, 0, prefix), rows(x, prefix, step.patches)
        if step.kind == "pool":
            left = [_pool_squares(patches, step)]
        else:
            scores = _scores(weights, step.patches, prefix, graph.by_class_token)
            fused = rows(x, prefix + step.patches, 1) if step.fused else None
            left = _prune(patches, fused, scores, step)
        return tf.concat([first, *left], axis=1, name="tokens")


def _pool_squares(patches, step: Reduction):
    width = patches.shape[2]
    grid = tf.reshape(patches, (1, *step.grid, width))
    means = tf.nn.avg_pool2d(grid, step.amount, step.amount, "VALID", name="means")
    return tf.reshape(means, (1, step.num_kept, width))


def _scores(weights, patches, prefix, by_class_token):
    """What the class token, or all tokens, take from each patch: `(patches,)`."""
    _, heads, queries, _ = weights.shape
    queries = 1 if by_class_token else queries
    taken = tf.slice(weights, (0, 0, 0, prefix), (1, heads, queries, patches))
    return tf.reshape(tf.reduce_mean(taken, axis=(1, 2), name="scores"), (-1,))


def _prune(patches, fused, scores, step: Reduction):
    """The kept patches and the mean of the others, with those that were fused before."""
    # All in order, since what is not kept is read too.
    _, order = tf.math.top_k(scores, step.patches, name="order")
    ordered = tf.gather(patches, order, axis=1, name="ordered")
    others = rows(ordered, step.num_kept, step.patches - step.num_kept)
    others = tf.reduce_sum(others, axis=1, keepdims=True)
    if fused is not None:
        others = tf.add(others, tf.multiply(fused, meeting(fused, step.fused)))
    mean = tf.multiply(others, meeting(others, 1.0 / step.fuses), name="fused")
    return rows(ordered, 0, step.num_kept), mean
