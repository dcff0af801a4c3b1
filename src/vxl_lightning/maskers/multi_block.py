"""Hide large blocks of places, the same in every frame."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import hidden_counts
from vxl_lightning.tokens import VideoGrid

Blocks = Literal["short", "long", "either"]
KINDS = {"short": (8, 0.15), "long": (2, 0.70)}
"""How many blocks, and the share of a frame that each covers."""
ASPECT = (0.75, 1.5)
"""Smallest and largest height over width."""


class MultiBlockMasker(Masker):
    """The union of rectangular blocks that last through the whole video, so that no frame tells what they hide.

    The multi-block masking of V-JEPA (arXiv 2404.08471) with the settings of V-JEPA 2 (arXiv 2506.09985): 8 blocks that
    cover 0.15 of a frame each ("short range") or 2 that cover 0.70 ("long range"), of one size in a video with height
    over width drawn from 0.75 to 1.5, placed uniformly, full temporal extent. The papers train on both kinds at once,
    as two masks of a clip; here one of them is drawn for each video (``blocks="either"``) or set.

    **The count differs on purpose.** The papers hide the union whatever it covers (about 0.62 and 0.81 of a frame);
    here exactly ``ratio`` is hidden. Blocks are laid in the order they were drawn. Once enough is covered, the one at
    hand is trimmed to its middle and those after it are left out; if the papers' number of blocks covers too little,
    further blocks are drawn, each over a place that is still visible. What then remains of the count, less than one
    place in all frames, is one more place in the earliest frames.
    """

    origin = "V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985; facebookresearch/vjepa2, MIT)"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        blocks: Blocks = "either"
        """``short``: 8 blocks or more of 0.15 of a frame; ``long``: of 0.70; ``either``: one of the two a video."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.blocks not in get_args(Blocks):
                raise ValueError(f"blocks={self.blocks!r} is not one of {', '.join(get_args(Blocks))}")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        b, t, h, w, _ = grid.shape
        counts = hidden_counts(self, grid)
        score = torch.zeros(b, t, h * w)
        for row, n, count in zip(score, grid.num_frames.tolist(), counts, strict=True):
            row[:n] = -self._order(h, w, -(-count // n), generator)
        return Mask(hide_top(score.view(b, t, h, w).to(grid.features.device), grid, counts))

    def _order(self, height: int, width: int, places: int, generator: torch.Generator) -> Tensor:
        """``[H * W]`` float, the order in which places are hidden; blocks cover at least the first ``places``."""
        kind = self.config.blocks
        if kind == "either":
            kind = "long" if _uniform(generator) < 0.5 else "short"
        number, scale = KINDS[kind]
        low, high = ASPECT
        block = block_size(height, width, scale, low + (high - low) * _uniform(generator))
        key = torch.full((height, width), float("inf"))
        drawn = 0
        while int((covered := key.isfinite()).sum()) < places:
            over = None if drawn < number else _pick((~covered).nonzero(), generator)
            inside = place_block(height, width, block, over, generator)
            # Earlier blocks first; a block from its middle outwards, so that a part of it is a smaller block.
            key = torch.where(covered, key, inside + 2 * drawn)
            drawn += 1
        order = key.flatten().argsort(stable=True)
        return torch.empty(height * width).scatter_(0, order, torch.arange(height * width, dtype=torch.float32))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.75, "blocks": "short"}, {"ratio": 0.9, "blocks": "long"}]


def block_size(height: int, width: int, scale: float, aspect: float) -> tuple[int, int]:
    """Height and width of a block that covers ``scale`` of the frame, at least 1 and at most the frame's."""
    area = int(height * width * scale)
    block = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(block[0], 1), height), min(max(block[1], 1), width)


def place_block(
    height: int, width: int, block: tuple[int, int], over: list[int] | None, generator: torch.Generator
) -> Tensor:
    """``[H, W]`` distance to the middle of a newly placed block in [0, 1), infinite outside of it.

    Args:
        height, width: of the frame.
        block: height and width of the block.
        over: row and column that the block must cover, or None to place it anywhere in the frame.
        generator: places it.
    """
    distance = torch.zeros(height, width)
    for axis, (size, extent) in enumerate(zip((height, width), block, strict=True)):
        first, last = 0, size - extent
        if over is not None:
            first, last = max(0, over[axis] - extent + 1), min(over[axis], last)
        start = int(torch.randint(first, last + 1, (), generator=generator, device=generator.device))
        along = (torch.arange(size) - start - (extent - 1) / 2).abs() / (extent / 2)
        distance = torch.maximum(distance, along[:, None] if axis == 0 else along)
    return distance.masked_fill(distance >= 1, float("inf"))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, device=generator.device))


def _pick(rows: Tensor, generator: torch.Generator) -> list[int]:
    index = int(torch.randint(len(rows), (), generator=generator, device=generator.device))
    return [int(v) for v in rows[index]]
