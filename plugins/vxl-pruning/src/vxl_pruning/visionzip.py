"""VisionZip: of every frame the cells the encoder attends to, and a few that gather what the others hold."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, budget_tokens
from vxl_pruning.ranking import nearest

__all__ = ["VisionZip"]


class VisionZip(GroupCompressor):
    """Every frame alone: its dominant cells unchanged, then contextual tokens made of all others.

    Dominant are the cells of highest `VideoGrid.importance`. Of the others, in raster order, evenly spaced ones are
    anchors; each of the rest goes to the most similar anchor (cosine, float32), and a contextual token is its anchor
    plus the mean of what went to it. That is a sum, as published, so a contextual token is up to twice as long as a
    cell. The dominant tokens of a frame come first, then the contextual ones, each in raster order.

    After Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025 (arXiv
    2412.04467), section 3, and the code its authors released; 54 of 64 tokens are dominant as in their settings (54 +
    10 and 162 + 30 a frame). Differs: cells are compared by their features and not by the encoder's attention keys,
    and importance is whatever the encoder gives, because a grid has no keys and no class token; the class token, one
    of the original's dominant 54, is therefore a cell here; of equal anchors the first takes all.
    """

    needs_importance = True
    frames_per_group = 1
    origin: ClassVar[str] = "VisionZip (arXiv 2412.04467; dvlab-research/VisionZip, Apache-2.0); from the definition"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        dominant_share: float = 54 / 64
        """Share of a frame's tokens that are dominant cells, rounded half up; the others are contextual."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.dominant_share <= 1:
                raise ValueError(f"dominant_share={self.dominant_share} is not in [0, 1]; 54 of 64 is 0.84375")

    def tokens_per_group(self, height: int, width: int) -> int:
        return budget_tokens(height * width, self.config.retention)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        assert groups.importance is not None, "forward has checked needs_importance"
        count = self.tokens_per_group(h, w)
        dominant = int(count * self.config.dominant_share + 0.5)
        cells = groups.features.flatten(1, 3)
        order = groups.importance.float().flatten(1).argsort(dim=1, descending=True, stable=True)
        kept, rest = order[:, :dominant].sort(1).values, order[:, dominant:].sort(1).values
        carrier = torch.full((g, h * w), -1, dtype=torch.long, device=cells.device)
        carrier.scatter_(1, kept, torch.arange(dominant, device=cells.device).expand(g, dominant))
        tokens = _take(cells, kept)
        if count > dominant:
            contextual, target = contextual_tokens(_take(cells, rest), count - dominant)
            carrier.scatter_(1, rest, target + dominant)
            tokens = torch.cat([tokens, contextual.to(tokens.dtype)], 1)
        return tokens, carrier.view(g, f, h, w)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 1 / 2}, {"retention": 1 / 4, "dominant_share": 0.0}]


def contextual_tokens(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Contextual tokens of ``cells [G, N, D]``: ``count`` evenly spaced anchors, each plus the mean of those like it.

    Returns:
        ``[G, count, D]`` float32 tokens and ``[G, N]``, the token of each cell.
    """
    g, n, d = cells.shape
    cells = cells.float()
    slot = torch.arange(n, device=cells.device)
    step = n // count
    is_anchor = (slot % step == 0) & (slot < count * step)
    anchors, others = cells[:, is_anchor], cells[:, ~is_anchor]
    _, target = nearest(others, anchors)
    total = torch.zeros_like(anchors).scatter_add(1, target[..., None].expand_as(others), others)
    number = anchors.new_zeros(g, count).scatter_add(1, target, torch.ones_like(target, dtype=anchors.dtype))
    token = torch.empty(g, n, dtype=torch.long, device=cells.device)
    token[:, is_anchor], token[:, ~is_anchor] = torch.arange(count, device=cells.device), target
    return anchors + total / number.clamp(min=1)[..., None], token


def _take(cells: Tensor, index: Tensor) -> Tensor:
    """``[G, K, D]``: the cells of ``[G, N, D]`` at ``index [G, K]``."""
    return cells.gather(1, index[..., None].expand(*index.shape, cells.shape[-1]))
