"""Efficient Video Sampling: of a whole video, the cells that changed most."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.compressors.per_video import VideoCompressor, best_cells, kept_cells
from vxl_lightning.tokens import VideoGrid
from vxl_temporal.change import similarity_to_previous


class EfficientVideoSampling(VideoCompressor):
    """Keeps the first frame and, of all later ones, the cells least like the cell at their place one frame before.

    Cells are ranked over the whole video at once by cosine dissimilarity to the previous frame (which is looked at
    complete, kept or not), so a frame in which nothing moves may give no token and a cut gives many; hence it is not
    causal. Exactly ``max(H * W, int(T * H * W * retention))`` cells are kept, a number known beforehand: the first
    frame is always whole, so a video of fewer than ``1 / retention`` frames keeps that frame alone. Kept cells are
    unchanged and stay in order. Among equals the earliest wins.

    After Bagrov et al., "Efficient Video Sampling" (arXiv 2510.14624), as vLLM has it: there, and here, features are
    compared; the paper compares pixels. ``retention`` is one minus the pruning rate q; the default is the q = 0.7 that
    Nemotron was trained with. Differs: similarities are rounded to 1e-6 before they are ranked, so that cells that did
    not change tie.
    """

    origin: ClassVar[str] = (
        "Efficient Video Sampling (arXiv 2510.14624; in vLLM, Apache-2.0); written from its definition"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoCompressor.Config):
        retention: float = 0.3
        """Fraction of grid cells that reach the language model, in (0, 1]; a first frame's worth at the least."""

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        cells = height * width
        return max(cells, int(num_frames * cells * self.config.retention))

    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        _, t, h, w, _ = video.shape
        features = video.features[0]
        change = -similarity_to_previous(features, features[:0])
        return kept_cells(features, best_cells(change, self.num_tokens(t, h, w)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 0.3}, {"retention": 1 / 4}, {"retention": 1.0}]
