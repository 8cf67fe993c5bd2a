"""Where a model goes on with fewer tokens, and what of them is left."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from keras_vit.config.checks import (
    check_choice,
    check_integer,
    check_sequence,
    is_number,
)

REDUCTIONS = ("prune", "pool")


@dataclasses.dataclass(frozen=True)
class Reduction:
    """Fewer tokens from within one block on, behind its attention.

    Attributes:
        block: Number of the block, from 0.
        kind: `"prune"` or `"pool"`.
        amount: Part of the patches that is kept, or the side of a square in patches.
        patches: Number of patch tokens before it, without a fused one.
        grid: Their rows and columns; `None` where a pruning left none.
        fused: Number of patches that a fused token behind them stands for; 0 for none.
    """

    block: int
    kind: str
    amount: float
    patches: int
    grid: tuple[int, int] | None
    fused: int = 0

    @property
    def name(self) -> str:
        """Of its layer: `"block_03_prune"`."""
        return f"block_{self.block:02d}_{self.kind}"

    @property
    def num_kept(self) -> int:
        """Number of patch tokens after it, without a fused one."""
        if self.kind == "pool":
            return self.patches // int(self.amount) ** 2
        return count_kept(self.amount, self.patches)

    @property
    def fuses(self) -> int:
        """Number of patches that a fused token stands for after it; 0 for none."""
        return 0 if self.kind == "pool" else self.fused + self.patches - self.num_kept

    @property
    def num_read(self) -> int:
        """Number of tokens before it, without prefix tokens."""
        return self.patches + bool(self.fused)

    @property
    def num_left(self) -> int:
        """Number of tokens after it, without prefix tokens."""
        return self.num_kept + bool(self.fuses)

    @property
    def prunes(self) -> bool:
        """Whether it chooses tokens: keeping all of them is no choice."""
        return self.kind == "prune" and self.num_kept < self.patches


def count_kept(keep: float, patches: int) -> int:
    """How many of so many patches a pruning keeps; below 1 it always fuses one."""
    if keep == 1.0:
        return patches
    return min(max(round(keep * patches), 1), patches - 1)


def _place(value: Any, depth: int) -> tuple[tuple[int, str, float], ...] | Any:
    """`reduce_tokens` with its short forms at their usual places, else as it came.

    A number prunes in the blocks behind a quarter, a half and three quarters of the
    depth, as EViT does; `"pool"` pools squares of 2 x 2 before the middle.
    """
    last = max(depth - 2, 0)
    if value == "pool":
        return ((min(max(depth // 2 - 1, 0), last), "pool", 2),)
    if is_number(value):
        blocks = {depth * quarters // 4 for quarters in (1, 2, 3)}
        return tuple(
            (block, "prune", value) for block in sorted(blocks) if block <= last
        )
    return value


def parse_reductions(text: str) -> Any:
    """`reduce_tokens` from words: `"0.7"`, `"pool"`, `"1:0.5,3:0.5"`, `"2:pool"`.

    Raises:
        ValueError: If it is none of these.
    """
    if text == "pool":
        return text
    try:
        if ":" not in text:
            return float(text)
        return tuple(_parse_step(step) for step in text.split(","))
    except ValueError:
        raise ValueError(
            "tokens are reduced by a part to keep or by pool, everywhere or in blocks: "
            f"0.7, pool, 1:0.5,3:0.5 or 2:pool. Received: {text!r}"
        ) from None


def _parse_step(text: str) -> tuple[int, str, float]:
    block, _, amount = text.partition(":")
    if amount == "pool":
        return int(block), "pool", 2
    return int(block), "prune", float(amount)


def check_reductions(
    value: Any, depth: int, grid: tuple[int, int]
) -> tuple[tuple[int, str, float], ...]:
    """`reduce_tokens` as tuples of plain numbers.

    Args:
        value: As given to `ViTConfig`.
        depth: Number of blocks.
        grid: Patches along the height and along the width.

    Raises:
        ValueError: If a block, a kind or an amount is out of its range, or the grid
            can't be pooled.
    """
    value = _place(value, depth)
    name = "reduce_tokens, if it is neither a part to keep nor 'pool',"
    listed = [
        check_sequence("each of reduce_tokens", it)
        for it in check_sequence(name, value)
    ]
    if any(len(it) != 3 for it in listed):
        raise ValueError(
            "each of reduce_tokens must be (block, kind, amount), such as "
            f"(3, 'prune', 0.7). Received: {value!r}"
        )
    blocks = [check_integer("block of reduce_tokens", it[0], 0) for it in listed]
    if blocks != sorted(set(blocks)) or (blocks and blocks[-1] >= depth - 1):
        which = (
            f"of {depth}, 0 to {depth - 2}" if depth > 1 else "the model has no other"
        )
        raise ValueError(
            "reduce_tokens must name blocks before the last, each once and in order: "
            f"{which}. Received: blocks {blocks}"
        )
    checked = tuple(
        (block, it[1], _check_amount(*it[1:]))
        for block, it in zip(blocks, listed, strict=True)
    )
    for step in follow(checked, grid):
        _check_step(step)
    return checked


def _check_amount(kind: Any, amount: Any) -> float:
    check_choice("kind of reduce_tokens", kind, REDUCTIONS)
    if kind == "pool":
        return check_integer("side of 'pool' in reduce_tokens", amount, 2)
    if not is_number(amount) or not 0.0 < amount <= 1.0:
        raise ValueError(
            "part that 'prune' keeps in reduce_tokens must be in (0, 1]. Received: "
            f"{amount!r}"
        )
    return float(amount)


def _check_step(step: Reduction) -> None:
    where = f"Received: ({step.block}, {step.kind!r}, {step.amount}) in reduce_tokens"
    if step.kind == "prune":
        if step.patches < 2:
            raise ValueError(f"'prune' needs two patches to choose from. {where}")
        return
    if step.grid is None:
        raise ValueError(f"'pool' needs a grid, and 'prune' leaves none. {where}")
    if any(length % step.amount for length in step.grid):
        rows, columns = step.grid
        raise ValueError(
            f"'pool' needs a grid that its side divides; another image size or patch "
            f"size has one. {where}, a grid of {rows} x {columns}"
        )


def follow(
    reductions: Sequence[tuple[int, str, float]], grid: tuple[int, int]
) -> Iterator[Reduction]:
    """The reductions one after the other, each with what it starts from."""
    patches, left, fused = grid[0] * grid[1], grid, 0
    for block, kind, amount in reductions:
        step = Reduction(block, kind, amount, patches, left, fused)
        yield step
        patches, fused = step.num_kept, step.fuses
        if kind == "pool":
            left = tuple(length // int(amount) for length in left)
        elif fused:
            left = None
