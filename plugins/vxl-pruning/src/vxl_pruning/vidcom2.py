"""VidCom2: keeps the cells that stand out from their video and frame, and more of the frames that stand out."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import Compressor, budget_tokens
from vxl_lightning.compressors.per_video import VideoCompressor, kept_cells
from vxl_lightning.compressors.pieces import pieces
from vxl_lightning.tokens import VideoGrid
from vxl_pruning.ranking import apportion, ranks

__all__ = ["VidCom2"]

# Variances of the Gaussian kernels whose sum is the similarity.
SCALES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


class VidCom2(VideoCompressor):
    """Video Compression Commander: frames share the budget by how unusual they are, then each keeps its outliers.

    Cells are compared in the half of the channels that varies least over the video, as unit vectors, by a sum of
    Gaussian kernels (variances 1/8 to 2) of their distance to the mean of the video and to that of their frame. A
    frame is as unusual as its cells are unlike the video's mean, on average; of T frames it gets the share
    ``(1 + p - 1/T) / T`` of the budget, p being its softmax at ``temperature``. Of every frame the cells least like
    both means are kept, unchanged. Time and memory are linear in frames.

    After Liu et al., "Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large Language
    Models", EMNLP 2025 (arXiv 2505.14454), section 4, and the code its authors released; the defaults are theirs.
    Scores and shares are the same. Differs: shares are rounded by the largest remainder and capped at a whole frame,
    what is above going to the others, so that exactly ``retention`` of the video is kept (the original rounds every
    frame by itself); a frame may go without a token where there are fewer tokens than frames; all is computed in
    float32 whatever the features' dtype; ties go to the earliest cell.
    """

    origin: ClassVar[str] = "VidCom2 (arXiv 2505.14454; xuyang-liu16/VidCom2, Apache-2.0); written from the definition"
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(Compressor.Config):
        retention: float = 1 / 4
        """Fraction of grid cells that reach the language model, in (0, 1]."""
        channel_share: float = 0.5
        """Share of channels, those of the lowest variance, that cells are compared in; (0, 1]."""
        temperature: float = 0.01
        """Of the softmax that gives unusual frames more tokens; the higher, the more alike are the frames' budgets."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.channel_share <= 1:
                raise ValueError(f"channel_share={self.channel_share} is not in (0, 1]; 0.5 compares in half of them")
            if not self.temperature > 0:
                raise ValueError(f"temperature={self.temperature} must be above 0; 0.01 is usual")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        features = video.features[0]
        return kept_cells(features, self.keep(features))

    @torch.no_grad()
    def keep(self, features: Tensor) -> Tensor:
        """``[T, H, W]`` bool: the cells of ``features [T, H, W, D]`` that are kept."""
        t, h, w, _ = features.shape
        to_video, to_frame = similarities(features.flatten(1, 2), self.config.channel_share)
        quota = frame_shares(-to_video.mean(1), self.config.temperature) * self.num_tokens(t, h, w)
        count = apportion(quota, self.num_tokens(t, h, w), most=h * w)
        return (ranks(-(to_video + to_frame)) < count[:, None]).view(t, h, w)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 1 / 4}, {"retention": 0.8, "channel_share": 1.0}]


def similarities(cells: Tensor, channel_share: float) -> tuple[Tensor, Tensor]:
    """How alike the cells of ``[T, S, D]`` are to the mean of the video, and of their frame: ``[T, S]`` each, up to 5.

    No matrix product is taken, so equal cells of a frame have equal scores to the bit.
    """
    frames, count = pieces(cells), cells[..., 0].numel()
    mean = cells.mean((0, 1), dtype=torch.float32)
    variance = torch.stack([(part.float() - mean).square_().sum((0, 1)) for part in frames]).sum(0) / count
    steady = variance.argsort(stable=True)[: max(1, int(cells.shape[-1] * channel_share))].sort().values
    units = [F.normalize(part.index_select(-1, steady).float(), dim=-1) for part in frames]
    of_video = torch.stack([unit.sum((0, 1)) for unit in units]).sum(0) / count
    to_video = torch.cat([_kernel(unit, of_video) for unit in units])
    return to_video, torch.cat([_kernel(unit, unit.mean(1, keepdim=True)) for unit in units])


def frame_shares(uniqueness: Tensor, temperature: float) -> Tensor:
    """``[T]`` share of each frame of a budget, summing to 1, from how unusual each frame is."""
    p = F.softmax(uniqueness / temperature, dim=0)
    return (1 + p - p.mean()) / len(p)


def _kernel(unit: Tensor, centre: Tensor) -> Tensor:
    distance = (unit - centre).square_().sum(-1)
    return torch.stack([torch.exp(-distance / (2 * scale)) for scale in SCALES]).sum(0)
