"""HoliTom's merging before the language model: segments that save the most, and density peaks inside them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.compressors.per_video import VideoCompressor
from vxl_lightning.compressors.pieces import cosines
from vxl_lightning.tokens import VideoGrid
from vxl_segments.reduction import Segments, reduce

__all__ = ["HoliTom"]


class HoliTom(VideoCompressor):
    """Cuts the video where that saves the most tokens, merges what stands still in a segment, and clusters the rest.

    A place is static in a segment when its cells in any two successive frames of it are more similar than ``tau``
    (cosine, float32). Dynamic programming finds the cut that maximises, over all segments, the number of static places
    times the frames saved, length - 1; of equally good last segments the shortest is taken. A static place becomes the
    mean of its cells; the static tokens of each segment, and the other cells of each frame, are then clustered around
    density peaks (DPC-kNN), each set to its share of exactly ``retention`` of the cells. See `reduce` for budgets that
    are looser than the merging over time.

    The cost is linear in frames: a static place's saving depends on how long it has stood still alone, so a segment's
    saving is read from one histogram a frame, and ``max_segment`` bounds the segments that end there.

    After Shao et al., "HoliTom" (arXiv 2505.21334), temporal and spatial merging before the language model, and its
    release: tau 0.8 (0.65 where 10% are kept), k = 7, 0.6 for a cluster's centre, segments of at most 1024 frames.
    Follows: the programme and its ties, densities, centres and merged tokens. Differs: sets share the budget exactly,
    where the original rounds static sets to the nearest and frames up; k is not bounded by the number of clusters;
    equals go to the earliest instead of being told apart by noise; cells that move are clustered as static ones are,
    where the release picks them by the vision tower's attention. The merging inside the language model is not here.
    """

    origin: ClassVar[str] = "HoliTom (arXiv 2505.21334; cokeshao/HoliTom, Apache-2.0); written anew"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        tau: float = 0.8
        """Cosine of successive frames above which a place stands still (the paper takes 0.65 at a retention of 0.1)."""
        max_segment: int = 1024
        """Most frames of a segment."""
        neighbours: int = 7
        """Nearest cells, itself among them, that a cell's density is measured by."""
        centre_share: float = 0.6
        """Weight of its centre in a clustered token; the mean of its other cells has the rest."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("max_segment", "neighbours"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
            if not -1 <= self.tau <= 1:
                raise ValueError(f"tau={self.tau} is a cosine and must lie in [-1, 1], such as the paper's 0.8")
            if not 0 <= self.centre_share <= 1:
                raise ValueError(f"centre_share={self.centre_share} must lie in [0, 1], such as 0.6")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        config = self.config
        features = video.features[0]
        with torch.no_grad():
            cells = features.flatten(1, 2)
            segments = static_segments(cosines(cells[:-1], cells[1:]) > config.tau, config.max_segment)
        count = self.num_tokens(*features.shape[:3])
        return reduce(features, segments, count, neighbours=config.neighbours, centre_share=config.centre_share)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 0.4, "tau": 0.1, "max_segment": 3, "neighbours": 3},
            {"retention": 0.9, "tau": -0.2, "centre_share": 0.5},
        ]


def static_segments(still: Tensor, longest: int) -> Segments:
    """The cut into segments that saves the most tokens.

    Args:
        still: ``[T - 1, P]`` bool, the places that stand still from a frame to the next.
        longest: most frames of a segment.
    """
    frames, device = len(still) + 1, still.device
    longest = min(longest, frames)
    index = torch.arange(frames, device=device)[:, None]
    moved = torch.cat([still.new_ones(1, still.shape[1]), ~still])
    run = index - torch.where(moved, index, 0).cummax(0).values  # frames since a place moved last
    histogram = torch.bincount((index * longest + run.clamp(max=longest - 1)).flatten(), minlength=frames * longest)
    standing = histogram.view(frames, longest).flip(1).cumsum(1).flip(1)
    saved = (standing * torch.arange(longest, device=device)).cpu()  # [T, m]: by the m + 1 frames that end at t

    best = saved.new_zeros(frames + 1)
    last = []
    for t in range(frames):
        low = max(0, t + 1 - longest)
        value = best[low : t + 1].flip(0) + saved[t, : t + 1 - low]
        m = int(value.argmax())  # the first, hence shortest, of equals
        best[t + 1] = value[m]
        last.append(m + 1)
    lengths: list[int] = []
    while frames > 0:
        lengths.append(last[frames - 1])
        frames -= last[frames - 1]
    length = torch.tensor(lengths[::-1], device=device)
    static = (run[length.cumsum(0) - 1] >= length[:, None] - 1) & (length > 1)[:, None]
    return Segments(length, static)
