"""PruneVid's merging before the language model: clustered frames, static places over time, the rest in space."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.compressors.per_video import VideoCompressor, mean_cells
from vxl_lightning.tokens import VideoGrid
from vxl_segments.reduction import Segments, reduce

__all__ = ["PruneVid"]


class PruneVid(VideoCompressor):
    """Cuts the video where clusters of frames change, merges what stands still in a segment, and clusters the rest.

    Frames, each the mean of its cells, are clustered around density peaks (DPC-kNN) to ``segment_ratio`` of their
    number; successive frames of one cluster are a segment. A place is static in a segment when the mean cosine
    (float32) of all pairs of its cells is at least ``tau``; it becomes the mean of its cells. The static tokens of each
    segment, and the other cells of each frame, are then clustered around density peaks, each set to the same share of
    its size, as far as whole tokens allow, so that exactly ``retention`` of the cells are left; a token is the mean of
    its cells. See `reduce` for budgets that are looser than the merging over time.

    Frames are clustered ``horizon`` at a time, which keeps the cost linear in frames; a segment ends there.

    After Huang et al., "PruneVid" (arXiv 2412.16117), spatial-temporal token merging: a quarter of the frames,
    tau = 0.8. Its code is CC BY-NC-SA and was not used. Differs: the budget decides how much is merged in space, where
    the paper halves; a cluster that returns later is a new segment, so that segments are stretches of time; the paper
    clusters all frames at once; what its text leaves open (k, and that of equals the earliest comes first) is settled
    here. The question's attention in the tenth layer, which prunes these tokens further, belongs to the cache and is
    not here.
    """

    origin: ClassVar[str] = (
        "PruneVid (arXiv 2412.16117; Visual-AI/PruneVid, CC BY-NC-SA, was not used); clean-room from the paper"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        segment_ratio: float = 0.25
        """Clusters of frames as a fraction of the frames."""
        tau: float = 0.8
        """Mean cosine of its cells from which a place stands still in a segment."""
        neighbours: int = 7
        """Nearest frames or cells, itself among them, by which density is measured."""
        horizon: int = 256
        """Frames that are clustered together."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.segment_ratio <= 1:
                raise ValueError(f"segment_ratio={self.segment_ratio} is not in (0, 1]; the paper takes 0.25")
            if not -1 <= self.tau <= 1:
                raise ValueError(f"tau={self.tau} is a cosine and must lie in [-1, 1], such as the paper's 0.8")
            for name in ("neighbours", "horizon"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        features = video.features[0]
        with torch.no_grad():
            cells = features.flatten(1, 2)
            length = self.lengths(cells.mean(1, dtype=torch.float32))
            segments = Segments(length, still_places(cells, length, self.config.tau))
        count = self.num_tokens(*features.shape[:3])
        return reduce(features, segments, count, neighbours=self.config.neighbours, centre_share=None)

    def lengths(self, frames: Tensor) -> Tensor:
        """``[S]`` frames of each segment, from one vector a frame ``[T, D]``."""
        t, size = len(frames), min(self.config.horizon, len(frames))
        stretches = -(-t // size)
        padded = F.pad(frames, (0, 0, 0, stretches * size - t)).view(stretches, size, -1)
        member = (torch.arange(stretches * size, device=frames.device) < t).view(stretches, size)
        count = (member.sum(1) * self.config.segment_ratio + 0.5).long().clamp(min=1)
        cluster = density_peaks(padded, member, count, self.config.neighbours).flatten()[:t]
        begins = F.pad(cluster[1:] != cluster[:-1], (1, 0), value=True)
        begins[::size] = True
        start = begins.nonzero()[:, 0]
        return start.diff(append=start.new_tensor([t]))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 0.4, "tau": 0.0, "segment_ratio": 0.4, "neighbours": 3, "horizon": 5},
            {"retention": 0.9, "tau": -1.0},
        ]


def still_places(cells: Tensor, length: Tensor, tau: float) -> Tensor:
    """``[S, P]`` bool, where the mean cosine of all pairs of a segment's frames is at least ``tau``.

    The pairs are never formed: the square of a sum of unit vectors holds the cosine of every pair twice.

    Args:
        cells: ``[T, P, D]``.
        length: ``[S]`` frames of each segment. In one of a single frame nothing stands still.
    """
    places = cells.shape[1]
    norm: Tensor = torch.linalg.vector_norm(cells, dim=-1, dtype=torch.float32)
    segment = torch.arange(len(length), device=cells.device).repeat_interleave(length)
    column = segment[:, None] * places + torch.arange(places, device=cells.device)
    total = mean_cells(cells, column, len(length) * places, 1 / norm.clamp(min=1e-12))
    own = torch.bincount(column[norm > 0], minlength=len(total))  # a unit vector's cosine to itself
    pairs = (length * (length - 1))[:, None]
    mean = (total.square().sum(-1) - own).view(-1, places) / pairs.clamp(min=1)
    return (mean >= tau) & (pairs > 0)
