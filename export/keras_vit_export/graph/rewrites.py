"""Exact rewrites of an inference graph: fewer operations, the same function.

Each takes a `Graph` and gives one that computes the same logits up to rounding, or the
same object where there is nothing to do. They may be applied alone or together, in the
order of `REWRITES`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_vit.config import check_choice
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

replace = dataclasses.replace


def fold_scaling(graph: Graph) -> Graph:
    """conv((x - mean) s) = conv'(x): s goes into the kernel, the mean into the bias.

    The mean only where the convolution does not pad: zeros at the border are pixels of
    the mean, so behind a padding convolution one SUB stays.
    """
    first = graph.stem[0] if graph.stem else graph.patches
    scale = np.ones(graph.image_shape[-1]) if graph.scale is None else graph.scale
    first = replace(first, kernel=first.kernel * scale[:, None])
    if graph.stem:
        mean = graph.mean if graph.mean is not None and graph.mean.any() else None
        stem = (first, *graph.stem[1:])
        return graph.replace(mean=mean, scale=None, stem=stem)
    if graph.mean is not None:
        shift = np.einsum("rcif,i->f", first.kernel, graph.mean)
        first = replace(first, bias=first.bias - shift)
    return graph.replace(mean=None, scale=None, patches=first)


def add_tokens_and_positions(graph: Graph) -> Graph:
    """Prefix tokens and their positions are summed once, not for every image."""
    if not graph.positions_cover_prefix:
        return graph
    count = len(graph.prefix)
    return graph.replace(
        prefix=graph.prefix + graph.positions[:count],
        positions=graph.positions[count:],
        positions_cover_prefix=False,
    )


def fold_layer_scale(graph: Graph) -> Graph:
    """gamma (x W + b) = x (W gamma) + b gamma."""

    def fold(branch: Branch) -> Branch:
        return _with_output(
            replace(branch, scale=None),
            lambda dense: Dense(dense.kernel * branch.scale, dense.bias * branch.scale),
        )

    if all(branch.scale is None for branch in graph.branches):
        return graph
    return graph.replace(branches=tuple(map(fold, graph.branches)))


def fold_norms(graph: Graph) -> Graph:
    """(gamma x + beta) W + b = x (gamma W) + (b + beta W), in every reader of a norm."""
    graph = graph.replace(branches=tuple(map(fold_branch_norm, graph.branches)))
    pool, heads = graph.pool, graph.heads
    if pool.norm is not None:
        mlp = _readers(pool.mlp, pool.norm)
        pool = replace(pool, mlp=mlp, norm=_plain(pool.norm))
    if pool.kind == "map" and not graph.norm_after_pool:
        # The attention of the pool reads the final norm, not the head.
        norm = heads[0].norm
        pool = replace(pool, attention=_context_readers(pool.attention, norm))
        heads = tuple(replace(head, norm=_plain(head.norm)) for head in heads)
        return graph.replace(pool=pool, heads=heads)
    if pool.kind == "sequence" and not graph.norm_after_pool:
        # Weights of a mean sum to 1, so gamma and beta pass through it to the head.
        importance = _reader(pool.importance, heads[0].norm)
        pool = replace(pool, importance=importance)
    return graph.replace(pool=pool, heads=tuple(map(_fold_head_norm, heads)))


def fold_key_and_value_biases(graph: Graph) -> Graph:
    """The key's bias goes; the value's joins the output's.

    q (k + b) adds one number to all scores of a query, which softmax ignores (not
    behind a norm of the keys). Weights sum to 1, so b_v comes out of the mean as it is.
    """

    def fold(layer: Attention) -> Attention:
        bias = layer.output.bias + layer.value.bias @ layer.output.kernel
        zeros = np.zeros_like(layer.value.bias)
        key = layer.key
        if key is not None and layer.key_norm is None:
            key = replace(key, bias=zeros)
        return replace(
            layer,
            key=key,
            value=replace(layer.value, bias=zeros),
            output=replace(layer.output, bias=bias),
        )

    return with_attention(graph, fold)


def centre_values(graph: Graph, means: Mapping[str, np.ndarray]) -> Graph:
    """Values lose their mean over tokens, and the output's bias has it.

    Weights sum to 1, until they are rounded to 8 bits: then most of hundreds become 0,
    and the sum is off by much of what the values have in common. That is nothing now.

    Args:
        graph: To be changed; it needs no other rewrite before.
        means: Of the values `(h e,)`, by the attention's name. Any give the same logits.
    """

    def centre(layer: Attention, name: str) -> Attention:
        if name not in means:
            return layer
        mean, value, output = means[name], layer.value, layer.output
        return replace(
            layer,
            value=replace(value, bias=value.bias - mean),
            output=replace(output, bias=output.bias + mean @ output.kernel),
        )

    return _note(_with_named_attention(graph, centre), centre_values)


def lift_weights(graph: Graph) -> Graph:
    """Each query's weights are divided by the root of their largest, for a while.

    Where a query looks at hundreds of tokens alike, its largest weight may be a step or
    two of 8 bits; with all of it, what they give would have as few.
    """
    lifted = with_attention(graph, lambda layer: replace(layer, lifted=True))
    return _note(lifted, lift_weights)


def fold_query_scale(graph: Graph) -> Graph:
    """1 / sqrt(e) goes into the query's dense layer, or into the query's norm."""

    def fold(layer: Attention) -> Attention:
        if layer.query is None:
            return layer
        if layer.query_norm is None:
            query = Dense(
                layer.query.kernel * layer.scale, layer.query.bias * layer.scale
            )
            return replace(layer, query=query, scale=1.0)
        norm = replace(
            layer.query_norm,
            gamma=layer.query_norm.gamma * layer.scale,
            beta=layer.query_norm.beta * layer.scale,
        )
        return replace(layer, query_norm=norm, scale=1.0)

    return with_attention(graph, fold)


def fold_probe(graph: Graph) -> Graph:
    """q (x W_k)^T = x (W_k q^T): the pool's query is fixed, so its keys need no layer.

    From d x d weights to d x h. The key's bias is the same for all tokens, which
    softmax ignores.
    """
    layer = graph.pool.attention
    if layer is None or layer.query is None:
        return graph
    query = graph.pool.probe @ layer.query.kernel + layer.query.bias  # (1, d)
    width = layer.key.kernel.shape[0]
    keys = layer.key.kernel.reshape(width, layer.num_heads, -1)  # (d, h, e)
    kernel = layer.scale * np.einsum("dhe,he->dh", keys, query.reshape(keys.shape[1:]))
    scores = Dense(kernel, np.zeros(layer.num_heads))
    layer = replace(layer, query=None, key=None, scale=1.0, scores=scores)
    return graph.replace(pool=replace(graph.pool, attention=layer))


def centre_stream(graph: Graph) -> Graph:
    """LayerNorm(x) = RMSNorm(x - mean(x)), with the mean taken out of every writer.

    Writers of the residual stream are the patches, the tokens, the positions and each
    branch's last dense layer, all linear; LayerScale is folded into the latter first.
    A convolutional stem ends in the same linear patches. Left undone where something
    other than a norm reads the stream: the pools that weigh tokens, before their norm.

    Source: https://arxiv.org/abs/2305.14858, section 3.1 (Pre-RMSNorm).
    """
    if not reads_through_norms(graph) or graph.heads[0].norm.centred:
        return graph
    graph = with_writers(fold_layer_scale(graph), _centre)
    branches, heads = (
        tuple(replace(it, norm=replace(it.norm, centred=True)) for it in readers)
        for readers in (graph.branches, graph.heads)
    )
    return graph.replace(branches=branches, heads=heads)


def prune_last_block(graph: Graph) -> Graph:
    """The last block computes the tokens that the head reads; the others are context.

    Those of the token pool, or the patch tokens for the mean. The other pools read all,
    or nearly.
    """
    prefix = len(graph.prefix)
    if graph.pool.kind == "token":
        return graph.replace(read=(0, len(graph.heads)))
    if graph.pool.kind == "mean" and prefix:
        return graph.replace(read=(prefix, graph.num_last_patches))
    return graph


def fuse_queries_keys_values(graph: Graph) -> Graph:
    """One dense layer, RESHAPE and TRANSPOSE for Q, K and V together, then SPLIT."""
    return with_attention(graph, lambda layer: replace(layer, fused=True))


REWRITES: dict[str, Callable[[Graph], Graph]] = {
    rewrite.__name__: rewrite
    for rewrite in (
        fold_scaling,
        add_tokens_and_positions,
        fold_layer_scale,
        fold_norms,
        fold_key_and_value_biases,
        fold_query_scale,
        fold_probe,
        centre_stream,
        prune_last_block,
        fuse_queries_keys_values,
    )
}


def rewrite(graph: Graph, names: Iterable[str] = tuple(REWRITES)) -> Graph:
    """Applies the named rewrites in the order of `REWRITES`, and notes which did something.

    Raises:
        ValueError: If there is none of that name.
    """
    names = set(names)
    for name in names:
        check_choice("rewrite", name, REWRITES)
    for name, function in REWRITES.items():
        if name in names and (changed := function(graph)) is not graph:
            graph = _note(changed, function)
    return graph


def _note(graph: Graph, function: Callable) -> Graph:
    return graph.replace(rewrites=(*graph.rewrites, function.__name__))


def reads_through_norms(graph: Graph) -> bool:
    """Whether nothing but norms reads the stream: some pools weigh tokens before."""
    return not (graph.norm_after_pool and graph.pool.kind in ("map", "sequence"))


def with_writers(graph: Graph, change: Callable[[np.ndarray], np.ndarray]) -> Graph:
    """The graph with all that is written to the stream changed, `(..., d)` each.

    The branches have no LayerScale.
    """

    def both(dense: Dense) -> Dense:
        return Dense(change(dense.kernel), change(dense.bias))

    return graph.replace(
        patches=Convolution(change(graph.patches.kernel), change(graph.patches.bias)),
        prefix=change(graph.prefix),
        positions=change(graph.positions),
        branches=tuple(_with_output(branch, both) for branch in graph.branches),
    )


def with_readers(graph: Graph, change: Callable[[Dense], Dense]) -> Graph:
    """The graph with all dense layers changed that read the stream through a norm."""

    def maybe(dense: Dense | None) -> Dense | None:
        return None if dense is None else change(dense)

    def parts(layer: Attention | FeedForward, *names: str) -> Attention | FeedForward:
        return replace(layer, **{it: maybe(getattr(layer, it)) for it in names})

    def branch(it: Branch) -> Branch:
        names = ("hidden", "hidden_value")
        if isinstance(it.layer, Attention):
            names = ("query", "key", "value", "scores")
        return replace(it, layer=parts(it.layer, *names))

    pool, heads = graph.pool, graph.heads
    if pool.kind == "map":  # the head reads what the pool makes of the tokens
        layer = parts(pool.attention, "key", "value", "scores")
        pool = replace(pool, attention=layer)
    else:
        pool = replace(pool, importance=maybe(pool.importance))
        heads = tuple(
            replace(it, layers=(change(it.layers[0]), *it.layers[1:])) for it in heads
        )
    branches = tuple(map(branch, graph.branches))
    return graph.replace(branches=branches, pool=pool, heads=heads)


def _with_output(branch: Branch, change: Callable[[Dense], Dense]) -> Branch:
    layer = replace(branch.layer, output=change(branch.layer.output))
    return replace(branch, layer=layer)


def with_attention(graph: Graph, change: Callable[[Attention], Attention]) -> Graph:
    return _with_named_attention(graph, lambda layer, name: change(layer))


def _with_named_attention(
    graph: Graph, change: Callable[[Attention, str], Attention]
) -> Graph:
    branches = tuple(
        replace(branch, layer=change(branch.layer, branch.name))
        if isinstance(branch.layer, Attention)
        else branch
        for branch in graph.branches
    )
    pool = graph.pool
    if pool.attention is not None:
        pool = replace(pool, attention=change(pool.attention, POOL_ATTENTION))
    return graph.replace(branches=branches, pool=pool)


def _plain(norm: Norm) -> Norm:
    return replace(norm, gamma=None, beta=None)


def _reader(dense: Dense | None, norm: Norm) -> Dense | None:
    """The dense layer that does norm's gamma and beta too."""
    if dense is None or norm.gamma is None:
        return dense
    # Where it reads two tokens side by side, each is behind the norm.
    times = len(dense.kernel) // len(norm.gamma)
    gamma, beta = np.tile(norm.gamma, times), np.tile(norm.beta, times)
    return Dense(dense.kernel * gamma[:, None], dense.bias + beta @ dense.kernel)


def _readers(layer: FeedForward, norm: Norm) -> FeedForward:
    value = _reader(layer.hidden_value, norm)
    return replace(layer, hidden=_reader(layer.hidden, norm), hidden_value=value)


def _context_readers(layer: Attention, norm: Norm) -> Attention:
    return replace(
        layer,
        key=_reader(layer.key, norm),
        value=_reader(layer.value, norm),
        scores=_reader(layer.scores, norm),
    )


def fold_branch_norm(branch: Branch) -> Branch:
    """A branch whose norm has no gamma and beta: its dense layers do them too."""
    layer, norm = branch.layer, branch.norm
    if isinstance(layer, FeedForward):
        layer = _readers(layer, norm)
    else:
        layer = _context_readers(layer, norm)
        layer = replace(layer, query=_reader(layer.query, norm))
    return replace(branch, layer=layer, norm=_plain(norm))


def _fold_head_norm(head: Head) -> Head:
    first, *rest = head.layers
    layers = (_reader(first, head.norm), *rest)
    return replace(head, layers=layers, norm=_plain(head.norm))


def _centre(array: np.ndarray) -> np.ndarray:
    """The mean over the last axis, the stream's channels, taken out."""
    return array - array.mean(axis=-1, keepdims=True)
