"""LLaVA-Scissor: what is connected by similarity, in a frame and then across frames, is one token."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.compressors.per_video import VideoCompressor, mean_cells
from vxl_lightning.tokens import VideoGrid
from vxl_segments.components import Links, trees

__all__ = ["LLaVAScissor"]


class LLaVAScissor(VideoCompressor):
    """Merges the semantic connected components of each frame, and then those of successive frames.

    In a frame, cells whose cosine (float32) is above ``tau`` are linked, and each connected component becomes its mean.
    The components of all frames are nodes of a second graph, in which those of frames at most ``reach`` apart are
    linked, and connected components are tokens: the mean of the cells they carry.

    The budget is exact. A threshold's components are what is left of a maximum spanning tree when its weaker links are
    cut, so instead of searching a threshold by bisection, and trimming, exactly as many of the tree's strongest links
    are kept as leave ``retention`` of the video's cells: the second graph's threshold is whatever that comes to. Where
    ``tau`` alone already merges more than the budget asks for, only the strongest links inside frames are kept, and
    nothing is merged over time. Among equal links those of the earliest cells come first.

    After Sun et al., "LLaVA-Scissor" (arXiv 2506.21862), semantic connected components in two steps, tau = 0.9. Its
    code is CC BY-NC and was not used. Differs: components are exact, not approximated from sampled cells (eps = 0.05);
    only the first threshold is given, for the second follows from the budget; the second graph reaches ``reach``
    frames instead of all, which keeps the cost linear in frames, and components still chain from frame to frame, but
    what returns after a longer absence is a token of its own; cells stay with their component, without the last
    assignment of every cell to its most similar token.
    """

    origin: ClassVar[str] = (
        "LLaVA-Scissor (arXiv 2506.21862; HumanMLLM/LLaVA-Scissor, CC BY-NC, was not used); clean-room from the paper"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        tau: float = 0.9
        """Cosine above which two cells of a frame are linked."""
        reach: int = 2
        """Frames over which components are linked in time."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not -1 <= self.tau <= 1:
                raise ValueError(f"tau={self.tau} is a cosine and must lie in [-1, 1], such as the paper's 0.9")
            if self.reach < 1:
                raise ValueError(f"reach={self.reach} must be at least 1: the next frame")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return budget_tokens(num_frames * height * width, self.config.retention)

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        features = video.features[0]
        count = self.num_tokens(*features.shape[:3])
        source = self.components(features.detach(), count)
        return mean_cells(features, source, count), source

    def components(self, features: Tensor, count: int) -> Tensor:
        """``[T, H, W]`` the component of each cell of ``features [T, H, W, D]``: ``count`` of them, by first cells."""
        t, h, w, _ = features.shape
        cell = torch.arange(t * h * w, device=features.device).view(t, h * w)
        inside = Links.of(trees(features.flatten(1, 2), cell)).above(self.config.tau)
        inside = inside.strongest(cell.numel() - count)
        local = inside.components(cell.numel()).to(features.device).view(t, h, w)
        number = cell.numel() - len(inside.ends)
        if number == count:
            return local
        means = mean_cells(features, local, number)
        across = Links.of(_links_in_time(means, local, self.config.reach)).tree(number)
        return across.strongest(number - count).components(number).to(local.device)[local]

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 16}, {"retention": 0.3, "tau": 0.2, "reach": 1}, {"retention": 0.95, "tau": -1.0}]


def _links_in_time(means: Tensor, component: Tensor, reach: int) -> list[tuple[Tensor, Tensor]]:
    """Links that hold a maximum spanning tree of all components at most ``reach`` frames apart.

    That tree is part of the trees of any graphs that cover it together: here a frame, and every two frames in reach.
    """
    frames = component.flatten(1)
    first, last = frames.amin(1), frames.amax(1)
    slot = first[:, None] + torch.arange(int((last - first).max()) + 1, device=means.device)
    node = torch.where(slot <= last[:, None], slot, -1)
    points = means[node]
    parts = trees(points, node)
    for apart in range(1, min(reach, len(frames) - 1) + 1):
        parts += trees(torch.cat([points[:-apart], points[apart:]], 1), torch.cat([node[:-apart], node[apart:]], 1))
    return parts
