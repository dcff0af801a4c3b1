"""Hide the frames between key frames."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid


class HierarchicalMasker(Masker):
    """Key frames stay visible and the interiors between them are hidden, at one level of a hierarchy of strides.

    The idea is that of NUWA-XL (arXiv 2303.12346), which makes a long video coarse to fine: key frames first, then,
    level by level, what lies between two known frames. It makes videos and has no masker; **this definition is this
    project's own**. At level l key frames are ``branch ** l`` frames apart, counted from a drawn one; the first
    and the last frame of a video are always key. The level is drawn for each video unless set.

    Exactly ``ratio`` of the cells is hidden, by whole frames. Interiors are hidden one after another, in random order,
    until the count is met, so that at a high level few and long stretches are hidden and elsewhere all is visible. If
    all interiors are too few, key frames follow, those of the finest level first and the ends last, in random order.
    The last frame is hidden in part, in places drawn at random.
    """

    origin = "idea: NUWA-XL (arXiv 2303.12346); the definition is this project's own"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        branch: int = 4
        """How many times farther apart key frames are from one level to the next."""
        level: int | None = None
        """Key frames are branch ** level frames apart; null draws a level that fits into the video."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.branch < 2:
                raise ValueError(f"branch={self.branch} must be at least 2; 4 makes every fourth frame a key frame")
            if self.level is not None and self.level < 1:
                raise ValueError(f"level={self.level} must be at least 1, or null to draw it")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        score = torch.zeros(grid.shape[:2])
        for row, n in zip(score, grid.num_frames.tolist(), strict=True):
            row[:n] = -self._order(n, generator)
        # Noise below 1 orders the cells of the frame that is hidden in part, and never exchanges frames.
        cells = score[:, :, None, None].to(grid.features.device) + uniform_noise(grid, generator) / 2
        return Mask(hide_top(cells, grid, hidden_counts(self, grid)))

    def _order(self, frames: int, generator: torch.Generator) -> Tensor:
        """``[T]`` float, the order in which frames are hidden."""
        branch, device = self.config.branch, generator.device
        deepest = 1
        while branch ** (deepest + 1) < frames:
            deepest += 1
        drawn = int(torch.randint(1, deepest + 1, (), generator=generator, device=device))
        level = min(self.config.level or drawn, deepest)
        offset = int(torch.randint(branch**deepest, (), generator=generator, device=device))
        depth = depths(frames, branch, deepest, offset)

        interior = depth < level
        # The frames up to the next key frame are one stretch. All stretches have a number, drawn at random.
        stretch = (~interior).cumsum(0)
        number = torch.rand(frames + 1, generator=generator, device=device).cpu()
        first = torch.where(interior, -1, depth)
        second = torch.where(interior, number[stretch], torch.rand(frames, generator=generator, device=device).cpu())
        order = second.argsort(stable=True)
        order = order[first[order].argsort(stable=True)]
        return torch.empty(frames).scatter_(0, order, torch.arange(frames, dtype=torch.float32))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.75, "branch": 2, "level": 2}, {"ratio": 0.95}]


def depths(frames: int, branch: int, deepest: int, offset: int) -> Tensor:
    """``[T]`` the coarsest level at which each frame is a key frame; the ends are one above all levels.

    Frame t is a key frame of level l where ``t - offset`` is a multiple of ``branch ** l``.
    """
    t = torch.arange(frames) - offset
    depth = torch.stack([t % branch**level == 0 for level in range(1, deepest + 1)]).sum(0)
    depth[0] = depth[-1] = deepest + 1
    return depth
