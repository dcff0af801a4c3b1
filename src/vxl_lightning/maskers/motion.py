"""Hide the same things through time, following them as they move."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import gumbel, hidden_counts
from vxl_lightning.maskers.semantic import redundancy
from vxl_lightning.tokens import VideoGrid

SIMILARITY_STEP = 1e-5
"""Similarities are rounded to it, so that equal cells tie on every device."""


class MotionMasker(Masker):
    """Visible places are drawn in the middle frame and followed from frame to frame; the rest is hidden.

    After MGMAE (arXiv 2308.10794): a map of one base frame is carried along the motion of the video, so that what is
    hidden stays hidden while it moves and cannot be copied from a frame in which a tube no longer covers it. As there,
    the map is warped backwards (a cell takes the value of the place that it came from, so no holes are left) and every
    frame shows the cells of highest value, equally many; what the count leaves over is hidden in the earliest frames.

    Three things differ. Motion comes **without an optical-flow network**: a cell came from the most similar cell
    (cosine, float32, the nearest among equals) no farther than ``reach`` places from it in the frame next to it on the
    base frame's side. Places of the base frame are drawn in proportion to ``(1 + motion / mean motion) ** preference``,
    with the motion that `VideoGrid.motion` carries, or else 1 minus the cosine to the same place one frame earlier, so
    that no side information is needed; the paper draws uniformly (``preference=0``). And whole cells move, so no
    mixture of Gaussians spreads the first map. The paper hides 0.9.
    """

    origin = "idea: MGMAE (arXiv 2308.10794; code MIT), without its flow network"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        reach: int = 2
        """Farthest, in rows and columns, that a cell is looked for in the next frame."""
        preference: float = 1.0
        """How much rather moving places are visible; 0 draws uniformly, as the paper does."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.reach < 0:
                raise ValueError(f"reach={self.reach} must not be negative; 0 follows nothing and hides tubes")
            if self.preference < 0:
                raise ValueError(f"preference={self.preference} must not be negative; 0 draws uniformly")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        b, t, h, w, _ = grid.shape
        device = grid.features.device
        motion = 1 - redundancy(grid) if grid.motion is None else grid.motion.float()
        score = torch.zeros(b, t, h * w, device=device)
        for i, n in enumerate(grid.num_frames.tolist()):
            base = n // 2
            still = motion[i, base].flatten().clamp(min=0)
            weight = 1 + still / still.mean().clamp(min=torch.finfo(still.dtype).tiny)
            noise = torch.rand(h * w, generator=generator, device=generator.device).to(device)
            value = self.config.preference * weight.log() + gumbel(noise)
            carried = carry(value, origins(grid.features[i, :n], base, self.config.reach), base)
            # All frames hide the same ranks of their values, the lowest first.
            score[i, :n] = -carried.argsort(dim=1, stable=True).argsort(dim=1).float()
        return Mask(hide_top(score.view(b, t, h, w), grid, hidden_counts(self, grid)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.9, "reach": 1, "preference": 0.0}]


def origins(features: Tensor, base: int, reach: int) -> Tensor:
    """``[T, H * W]`` the place in the neighbouring frame, on the side of frame ``base``, that each cell came from.

    Args:
        features: ``[T, H, W, D]`` of one video.
        base: the frame that motion is followed from; its own cells came from themselves.
        reach: farthest difference in rows and columns.
    """
    t, h, w, _ = features.shape
    here = F.normalize(features.float(), dim=-1)
    there = torch.cat([here[1 : base + 1], here[base : base + 1], here[base : t - 1]])
    place = torch.arange(h * w, device=features.device).view(h, w)
    best = here.new_full((t, h, w), float("-inf"))
    origin = place.expand(t, h, w).clone()
    for dy, dx in _shifts(min(reach, h - 1), min(reach, w - 1)):
        rows, from_rows = _overlap(h, dy)
        columns, from_columns = _overlap(w, dx)
        likeness = (here[:, rows, columns] * there[:, from_rows, from_columns]).sum(-1)
        likeness = (likeness / SIMILARITY_STEP).round()
        better = likeness > best[:, rows, columns]
        best[:, rows, columns] = torch.where(better, likeness, best[:, rows, columns])
        origin[:, rows, columns] = torch.where(better, place[from_rows, from_columns], origin[:, rows, columns])
    origin[base] = place
    return origin.flatten(1)


def carry(value: Tensor, origin: Tensor, base: int) -> Tensor:
    """``[T, N]`` the ``value [N]`` of frame ``base``, carried from frame to frame along ``origin [T, N]``."""
    carried = [value] * len(origin)
    for frame in range(base + 1, len(origin)):
        carried[frame] = carried[frame - 1][origin[frame]]
    for frame in range(base - 1, -1, -1):
        carried[frame] = carried[frame + 1][origin[frame]]
    return torch.stack(carried)


def _shifts(rows: int, columns: int) -> list[tuple[int, int]]:
    """Differences in row and column, the nearest first: among equals the first one tried wins."""
    every = [(dy, dx) for dy in range(-rows, rows + 1) for dx in range(-columns, columns + 1)]
    return sorted(every, key=lambda s: s[0] ** 2 + s[1] ** 2)


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """The places that have a place ``shift`` further on, and those places."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))
