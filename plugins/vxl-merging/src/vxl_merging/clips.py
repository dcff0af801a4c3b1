"""What the family's compressors share: each clip is merged by itself, to an exact count."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, budget_tokens

AT_ONCE = {"cpu": 1 << 22}
AT_ONCE_ELSEWHERE = 1 << 26
"""Pairs of cells that are looked at together: clips are merged a few at a time, so memory does not grow with them; on
the CPU those whose similarities a cache holds."""


class ClipMerger(GroupCompressor):
    """Merges the cells of every ``frames_per_group`` frames to exactly ``retention`` of them.

    Frames that only fill a video's last clip take no part. Where that clip has fewer cells than tokens are due, its
    last token is repeated, and the copies carry no cell. A subclass writes ``merge_clips``.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames of a clip, which are merged together."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames_per_group < 1:
                raise ValueError(f"frames_per_group={self.frames_per_group} must be at least 1")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group

    @abstractmethod
    def merge_clips(self, clips: Groups, count: int) -> tuple[Tensor, Tensor]:
        """Merge clips of equal length, all of whose frames are real.

        Args:
            clips: ``features [G, F, H, W, D]``, F at most ``frames_per_group``.
            count: tokens each becomes; at most its cells.

        Returns:
            ``[G, count, D]`` tokens, and ``[G, F, H, W]`` the token of each cell.
        """

    def tokens_per_group(self, height: int, width: int) -> int:
        return budget_tokens(self.group_size * height * width, self.config.retention)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        k = self.tokens_per_group(h, w)
        tokens = groups.features.new_empty(g, k, d)
        source = torch.full((g, f, h, w), -1, dtype=torch.long, device=tokens.device)
        filled = groups.valid.sum(1)
        at_once = AT_ONCE.get(tokens.device.type, AT_ONCE_ELSEWHERE)
        for frames in filled.unique().tolist():
            cells = frames * h * w
            for rows in (filled == frames).nonzero()[:, 0].split(max(1, at_once // cells**2)):
                merged, carrier = self.merge_clips(_clips(groups, rows, frames), min(k, cells))
                merged = F.pad(merged.mT, (0, k - merged.shape[1]), mode="replicate").mT
                tokens[rows] = merged.to(tokens.dtype)
                source[rows, :frames] = carrier
        return tokens, source


def _clips(groups: Groups, rows: Tensor, frames: int) -> Groups:
    """Some of the groups, cut to their first ``frames``; a view of them where the rows, ascending, have no gaps."""
    first, last = int(rows[0]), int(rows[-1])
    index = slice(first, last + 1) if last - first < len(rows) else rows

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[index, :frames]

    return replace(
        groups,
        features=groups.features[index, :frames],
        index=groups.index[index],
        valid=groups.valid[index, :frames],
        importance=cut(groups.importance),
        motion=cut(groups.motion),
        query=None if groups.query is None else groups.query[index],
        video=groups.video[index],
    )
