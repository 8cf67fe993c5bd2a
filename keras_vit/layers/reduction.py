"""Fewer tokens: the least attended are fused into one, or squares of patches averaged."""

import keras
from keras import KerasTensor, layers, ops

from keras_vit.config import count_kept


@keras.saving.register_keras_serializable(package="keras_vit")
class PruneTokens(layers.Layer):
    """[prefix, the k patches that attention takes most from, the mean of the others].

    What is taken from a patch, its score, is the mean over the heads of what the class
    token takes, a row of the attention weights; or, where no class token is read, of
    what all tokens take, the mean of the rows. The last token, the fused one, is that of
    an earlier pruning where there was one: it is fused again, never kept, and weighs as
    many patches as it stands for. So the mean of all patches stays what it is. EViT
    weighs the others by their scores instead, which was no better on a pretrained model.

    Kept tokens stand in the order of their scores: later blocks don't read the order.
    Of equal scores the first patch is kept. The choice has no gradient, tokens have.

    Args:
        keep: Part of the patches that is kept, in (0, 1]; 1 keeps all and fuses none.
            k is rounded; below 1 at least one patch is kept and one fused.
        num_prefix_tokens: Number of tokens before the patch tokens, which all stay.
        by_class_token: Whether the score is what the first token takes.
        fused: Number of patches that the last token stands for, if it is a fused one.

    Call arguments:
        tokens: X, shape `(b, n, d)`.
        weights: Attention weights of the same tokens, shape `(b, h, n, n)`.

    Output shape: `(b, prefix + k + 1, d)`.

    Raises:
        ValueError: If `keep` is outside (0, 1].

    Source: https://arxiv.org/abs/2202.07800, section 3 (EViT).
    """

    def __init__(
        self,
        keep: float,
        num_prefix_tokens: int = 0,
        by_class_token: bool = True,
        fused: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0.0 < keep <= 1.0:
            raise ValueError(f"keep must be in (0, 1]. Received: {keep!r}")
        self.keep = keep
        self.num_prefix_tokens = num_prefix_tokens
        self.by_class_token = by_class_token
        self.fused = fused

    def call(self, tokens, weights):
        if self.keep == 1.0:
            return tokens
        first, last = self.num_prefix_tokens, tokens.shape[1] - bool(self.fused)
        order = self.order(weights)[:, :, None]
        patches = ops.take_along_axis(tokens[:, first:last], order, axis=1)
        kept = count_kept(self.keep, last - first)
        others = ops.sum(patches[:, kept:], axis=1, keepdims=True)  # (b, 1, d)
        if self.fused:
            others = others + self.fused * tokens[:, last:]
        fused = others / (self.fused + last - first - kept)
        return ops.concatenate([tokens[:, :first], patches[:, :kept], fused], axis=1)

    def scores(self, weights: KerasTensor) -> KerasTensor:
        """What is taken from each token, `(b, n)` in float32, by `(b, h, n, n)`."""
        weights = ops.cast(weights, "float32")  # halves have ties
        if self.by_class_token:
            return ops.mean(weights[:, :, 0], axis=1)
        return ops.mean(weights, axis=(1, 2))

    def order(self, weights: KerasTensor) -> KerasTensor:
        """Numbers of the patches by falling score, `(b, patches)`."""
        first, last = self.num_prefix_tokens, weights.shape[-1] - bool(self.fused)
        return ops.top_k(self.scores(weights)[:, first:last], last - first)[1]

    def compute_output_shape(self, tokens_shape, weights_shape=None):
        batch, count, width = tokens_shape
        if count is not None and self.keep < 1.0:
            patches = count - bool(self.fused) - self.num_prefix_tokens
            count = self.num_prefix_tokens + count_kept(self.keep, patches) + 1
        return batch, count, width

    def get_config(self):
        return super().get_config() | {
            "keep": self.keep,
            "num_prefix_tokens": self.num_prefix_tokens,
            "by_class_token": self.by_class_token,
            "fused": self.fused,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class PoolTokens(layers.Layer):
    """[prefix, the mean of each square of side x side patches].

    Args:
        grid: Patches along the height and along the width; `side` divides both.
        side: Side of a square, in patches.
        num_prefix_tokens: Number of tokens before the patch tokens, which all stay.

    Input shape: `(b, n, d)`.  Output shape: `(b, prefix + patches / side^2, d)`.

    Raises:
        ValueError: If `side` doesn't divide the grid.

    Source: https://arxiv.org/abs/2103.16302, section 3 (PiT pools tokens on their grid
        between blocks, by a convolution; a mean needs no weights).
    """

    def __init__(
        self,
        grid: tuple[int, int],
        side: int = 2,
        num_prefix_tokens: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if any(length % side for length in grid):
            raise ValueError(
                f"side must divide the grid. Received: side={side}, grid={tuple(grid)}"
            )
        self.grid = tuple(grid)
        self.side = side
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens):
        first = self.num_prefix_tokens
        squares = ops.reshape(tokens[:, first:], (-1, *self.grid, tokens.shape[-1]))
        means = ops.average_pool(squares, self.side)  # (b, rows, columns, d)
        means = ops.reshape(means, (-1, self._count_squares(), tokens.shape[-1]))
        return ops.concatenate([tokens[:, :first], means], axis=1)

    def _count_squares(self) -> int:
        rows, columns = self.grid
        return rows * columns // self.side**2

    def compute_output_shape(self, input_shape):
        batch, _, width = input_shape
        return batch, self.num_prefix_tokens + self._count_squares(), width

    def get_config(self):
        return super().get_config() | {
            "grid": self.grid,
            "side": self.side,
            "num_prefix_tokens": self.num_prefix_tokens,
        }
