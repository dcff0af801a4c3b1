"""A budget from coarse to fine in time: key frames in detail, the frames between them ever more coarsely."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, blocks, budget_tokens
from vxl_lightning.compressors.pool import block_means, block_of_cell


class Tree(GroupCompressor):
    """Each segment is a tree of frames, level by level with its own grid; every frame is pooled to its level's.

    A segment is ``branch ** levels`` frames. Level 0 is its ``branch`` key frames, evenly spaced; each following level
    holds the frames that stand between those so far when every stretch between two is cut into ``branch``. The
    default's 16 frames are 4 key frames, 0 4 8 12, and the 12 between. Every level gets the same number of tokens, as
    nearly as grids allow (see `level_tokens`), so a key frame gets about ``branch - 1`` times the tokens of a frame
    between: with 24x24 cells and the default retention 72 to 24. The budget of a segment is met exactly.

    Levels and segments are computed in parallel, each segment alone: the cost is linear in frames, and training on
    segments is the same at any length of video. A token is the mean of its cells, in float32.

    After the coarse-to-fine process of NUWA-XL (Yin et al., arXiv 2303.12346, section 3): key frames over the whole,
    then between neighbours the frames that are missing, recursively, L^m frames at depth m, all parts in
    parallel. That work generates video, which is out of scope here and has no released code; what carries over is the
    tree of frames and its work in parallel. Differs: what a level does is spend tokens, not denoise frames; segments
    are of fixed length, where there the first level spans the whole video; and a segment ends before the next one's
    first key frame instead of sharing it.
    """

    origin = "NUWA-XL (arXiv 2303.12346; no released code); the budget is this project's own, written from scratch"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        branch: int = 4
        """Key frames of a segment, and parts that a stretch between two frames is cut into at each further level."""
        levels: int = 2
        """Levels of the tree; a segment is ``branch ** levels`` frames."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.branch < 2:
                raise ValueError(f"branch={self.branch} must be at least 2; to treat all frames alike take pool")
            if not 1 <= self.levels <= 4:
                raise ValueError(f"levels={self.levels} is not in 1..4; {self.branch} ** levels frames are a segment")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.branch**config.levels

    def tokens_per_group(self, height: int, width: int) -> int:
        grids = self.grids(height, width)
        return sum(rows * cols * len(self.level_frames(level)) for level, (rows, cols) in enumerate(grids))

    def level_frames(self, level: int) -> list[int]:
        """Which frames of a segment are a level's."""
        branch, levels = self.config.branch, self.config.levels
        step: int = branch ** (levels - 1 - level)
        return [f for f in range(0, self.group_size, step) if level == 0 or f % (step * branch)]

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of a frame's tokens at each level.

        Raises:
            ValueError: no grids spend the budget exactly; the nearest retentions that have some are named.
        """
        cells = height * width
        want = budget_tokens(self.group_size * cells, self.config.retention)
        frames = tuple(len(self.level_frames(level)) for level in range(self.config.levels))
        counts = level_tokens(want, frames, height, width)
        if counts is None:
            near = _nearest(want, frames, height, width)
            listed = ", ".join(f"{k / (self.group_size * cells):.6g}" for k in near)
            raise ValueError(
                f"retention={self.config.retention:.6g} asks for {want} tokens from a segment of {self.group_size} "
                f"frames of {height}x{width} cells, which no grids give that grow coarser from level to level and "
                f"leave every frame a token; nearest that do: {listed}"
            )
        return [blocks(cells, count / cells, height, width) for count in counts]

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, _ = groups.features.shape
        grid = [(0, 0)] * f
        for level, of_level in enumerate(self.grids(h, w)):
            for frame in self.level_frames(level):
                grid[frame] = of_level
        # Tokens stand in the order of their frames. A frame of all segments is read where it lies.
        tokens = torch.cat([block_means(groups.features[:, i], *grid[i]) for i in range(f)], 1)
        begin = accumulate((rows * cols for rows, cols in grid), initial=0)
        device = groups.features.device
        source = torch.stack([n + block_of_cell(*of, h, w, device) for n, of in zip(begin, grid, strict=False)])
        return tokens.to(groups.features.dtype), source.expand(g, f, h, w)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 20 / 64, "branch": 2},
            {"retention": 3 / 16, "branch": 2, "levels": 3},
            {"retention": 6 / 48, "branch": 3, "levels": 1},
        ]


@cache
def level_tokens(total: int, frames: tuple[int, ...], height: int, width: int) -> tuple[int, ...] | None:
    """Tokens of one frame at each level that come to ``total`` over a segment; None where no grids do.

    Each is the size of a grid of at most ``height x width``, none more than at the level before. Of all ways the one
    whose levels differ least in their tokens altogether, and of those the one with the finest key frames.

    Args:
        total: tokens of a segment.
        frames: of each level in a segment.
        height: rows of a frame's cells.
        width: columns.
    """
    sizes = sorted({r * c for r in range(1, height + 1) for c in range(1, width + 1)}, reverse=True)
    share = total / len(frames)

    def spread(counts: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return sum(abs(n * k - share) for n, k in zip(frames, counts, strict=True)), tuple(-k for k in counts)

    return min(_spendings(total, frames, sizes, height * width), key=spread, default=None)


def _spendings(total: int, frames: tuple[int, ...], sizes: list[int], limit: int) -> Iterator[tuple[int, ...]]:
    """All tokens a frame, level by level, none above the one before, that come to ``total``."""
    first, *rest = frames
    if not rest:
        if total % first == 0 and total // first <= limit and total // first in sizes:
            yield (total // first,)
        return
    for size in sizes:
        left = total - size * first
        # What is left must give every later frame a token, and none more than this one's.
        if size <= limit and sum(rest) <= left <= size * sum(rest):
            for later in _spendings(left, tuple(rest), sizes, size):
                yield (size, *later)


def _nearest(want: int, frames: tuple[int, ...], height: int, width: int) -> list[int]:
    """Up to three totals nearest to ``want`` that grids give, in order; every total is a multiple of the key frames."""
    unit = frames[0]
    possible = range(sum(frames), sum(frames) * height * width + 1, unit)
    found: list[int] = []
    for total in sorted(possible, key=lambda k: (abs(k - want), k)):
        if level_tokens(total, frames, height, width) is not None:
            found.append(total)
        if len(found) == 3:
            break
    return sorted(found)
