"""LongVU's spatial token compression: what a window repeats of its first frame goes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, StreamState, budget_tokens
from vxl_lightning.compressors.pieces import cosines
from vxl_lightning.tokens import VideoGrid, VideoTokens

# Similarities are rounded to this step, so that equal cells tie however many frames were compared at once.
SIMILARITY_STEP = 1e-5

# Ranks of the first frame's cells, beyond any similarity: those that stay even where not all of them fit, and the rest.
ANCHOR, FIRST_FRAME = 4.0, 3.0


class LongVU(GroupCompressor):
    """Keeps each window's first frame, and of the later frames the cells that differ most from it.

    Every cell is compared (cosine, float32) with the cell at the same place in its window's first frame. The first
    frame is kept whole as far as the budget goes; what is left of exactly ``retention`` of the window's cells goes to
    the least similar cells of its other frames, the earliest among equals. A budget below one frame keeps that many
    cells of the first frame, spread evenly along a Z-order curve and so over rows and columns alike. Tokens are cells,
    unchanged and in order.

    ``drop_threshold`` adds the paper's own rule: later cells at least that similar are dropped even where the budget
    would hold them. The announced count is then a bound; with ``retention=1`` it is the paper's rule alone.

    After Shen et al., "LongVU" (arXiv 2410.17434), section 3.3, spatial token compression: windows of 8 frames,
    threshold 0.8. Follows: the window, the reference frame, the similarity and, with ``drop_threshold``, the rule.
    Differs: by default a rank within an exact budget takes the threshold's place; where the threshold leaves more than
    the budget, the most similar cells go, and not the last of each window. Only this stage is here: not the DINOv2
    frame reduction before it, nor the query-guided choice of frames.
    """

    origin: ClassVar[str] = "LongVU (arXiv 2410.17434; Vision-CAIR/LongVU, Apache-2.0); written anew"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 8
        """Frames of a window; all are compared with its first."""
        drop_threshold: float | None = None
        """Cosine from which a cell counts as a repetition and is dropped whatever the budget allows (paper: 0.8)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames_per_group < 1:
                raise ValueError(f"frames_per_group={self.frames_per_group} must be at least 1")
            if self.drop_threshold is not None and not -1 <= self.drop_threshold <= 1:
                raise ValueError(
                    f"drop_threshold={self.drop_threshold} is a cosine and must lie in [-1, 1], such as the paper's "
                    "0.8; leave it out to spend the budget exactly"
                )

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group
        if config.drop_threshold is not None:
            self.budget = "bound"

    def tokens_per_group(self, height: int, width: int) -> int:
        return budget_tokens(self.group_size * height * width, self.config.retention)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, _ = groups.features.shape
        k = self.tokens_per_group(h, w)
        keep = self.kept(groups, k).flatten(1)
        cells, index = groups.features.flatten(1, 3), torch.arange(f * h * w, device=keep.device)
        if k == len(index):  # as many tokens as cells: they stay where they are, those without a cell among them
            return cells, torch.where(keep, index, -1).view(g, f, h, w)
        count = keep.sum(1, keepdim=True)
        source = torch.where(keep, keep.cumsum(1) - 1, -1).view(g, f, h, w)
        # Fewer cells than tokens: the last one is repeated, and the copies carry no cell.
        cell = (~keep).byte().argsort(dim=1, stable=True).gather(1, index[:k].minimum(count - 1))
        return cells[torch.arange(g, device=cell.device)[:, None], cell], source

    @torch.no_grad()
    def kept(self, groups: Groups, count: int) -> Tensor:
        """``[G, F, H, W]`` bool: the at most ``count`` cells of each group that become tokens."""
        g, f, h, w, _ = groups.features.shape
        cells = groups.features.flatten(2, 3)
        similarity = cosines(cells, cells[:, :1]).view(g, f, h, w)
        novelty = -(similarity / SIMILARITY_STEP).round() * SIMILARITY_STEP
        novelty[:, 0] = torch.where(spread(h, w, count, novelty.device), ANCHOR, FIRST_FRAME)
        may = groups.valid[:, :, None, None].expand_as(novelty)
        if self.config.drop_threshold is not None:
            may = may & ((similarity < self.config.drop_threshold) | (novelty >= FIRST_FRAME))
        order = novelty.masked_fill(~may, -torch.inf).flatten(1).argsort(dim=1, descending=True, stable=True)
        best = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], True)
        return best.view_as(may) & may

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        return self._carrying(super().compress(grid, query))

    def step(
        self, chunk: VideoGrid, state: StreamState | None = None, *, query: Tensor | None = None, last: bool = False
    ) -> tuple[VideoTokens, StreamState]:
        tokens, state = super().step(chunk, state, query=query, last=last)
        return self._carrying(tokens), state

    def _carrying(self, tokens: VideoTokens) -> VideoTokens:
        """With a threshold, without the tokens that were announced and not needed."""
        return tokens if self.config.drop_threshold is None else tokens.select(tokens.weight > 0)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 0.3, "frames_per_group": 3},
            {"retention": 0.5, "frames_per_group": 4, "drop_threshold": 0.1},
        ]


def spread(height: int, width: int, count: int, device: torch.device) -> Tensor:
    """``[H, W]`` bool, ``count`` cells (all, where there are fewer) at even distances along a Z-order curve."""
    row, col = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    cells = height * width
    curve = torch.zeros(height, width, dtype=torch.long, device=device)
    for bit in range(max(height, width).bit_length()):
        curve += (((row >> bit) & 1) << (2 * bit + 1)) + (((col >> bit) & 1) << (2 * bit))
    count = min(count, cells)
    at = (2 * torch.arange(count, device=device) + 1) * cells // (2 * count)
    chosen = torch.zeros(cells, dtype=torch.bool, device=device)
    chosen[curve.flatten().argsort()[at]] = True
    return chosen.view(height, width)
