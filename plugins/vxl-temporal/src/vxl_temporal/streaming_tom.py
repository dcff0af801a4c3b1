"""Causal temporal reduction: the same number of tokens of every frame, shared by what moved and what did not."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.compressors.per_video import mean_cells
from vxl_lightning.tokens import VideoGrid
from vxl_temporal.change import least, similarity, similarity_to_previous
from vxl_temporal.frames import FrameCompressor, FrameState

SALIENCES = ("importance", "novelty")


class CausalTemporalReduction(FrameCompressor):
    """Keeps exactly G tokens of every frame: of what moved the most salient cells, of what did not a few means.

    A cell is static where its cosine to the cell at its place in the previous frame is above ``threshold``, and dynamic
    otherwise; a first frame is all dynamic. Of ``H * W`` cells with S static ones, ``floor(G * S / (H * W))`` of the G
    tokens go to the static cells and the rest to the dynamic ones (so neither gets more than it has cells).

    - Dynamic cells: the most salient are kept unchanged, the others dropped.
    - Static cells: clustered by density peaks (`density_peaks`), as many clusters as tokens, each cell going to its
      nearest centre. A token is ``centre_weight`` times its centre plus the rest times the mean of the cluster, its
      centre included, and stands at its centre's place. Where the static cells are too few to be due a token, they are
      dropped.

    Tokens of a frame stay in the order of their places. What is remembered is the previous frame.

    After Chen et al., "StreamingTOM" (arXiv 2510.18269), its first stage (CTR). The defaults are its own: threshold
    0.9, 7 neighbours, weights 0.6 and 0.4, and 50 tokens of 196. Differs: where scores tie the earliest wins, and
    nothing is left to chance; distances between cells, which the published definition leaves open, are those of unit
    vectors, in keeping with the cosine that calls a cell static; ``salience=novelty`` is an addition, for encoders
    without attention.
    """

    origin: ClassVar[str] = (
        "StreamingTOM (arXiv 2510.18269; its code, YIGE24/StreamingTOM, has no licence and was not used); "
        "clean-room from the paper"
    )
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config(FrameCompressor.Config):
        retention: float = 50 / 196
        """Fraction of each frame's cells that reach the language model, in (0, 1]."""
        threshold: float = 0.9
        """A cell is static where its cosine to its predecessor is above this."""
        neighbours: int = 7
        """Nearest static cells that tell how dense it is about one."""
        centre_weight: float = 0.6
        """Share of the centre in a cluster's token; the mean of the cluster is the rest."""
        salience: str = "importance"
        """``importance``: the attention that the encoder gave a cell; ``novelty``: how unlike its predecessor it is
        (in a first frame, how unlike the mean of the frame), for encoders that give no importance."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not -1 <= self.threshold <= 1:
                raise ValueError(f"threshold={self.threshold} is a cosine, so from -1 to 1; 0.9 is the published one")
            if self.neighbours < 1:
                raise ValueError(f"neighbours={self.neighbours} must be at least 1; 7 is the published number")
            if not 0 <= self.centre_weight <= 1:
                raise ValueError(
                    f"centre_weight={self.centre_weight} is a share, from 0 to 1; 0.6 is the published one"
                )
            if self.salience not in SALIENCES:
                raise ValueError(f"salience={self.salience!r} is not one of {', '.join(SALIENCES)}")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        # On the instance, where it shadows the class's.
        self.needs_importance = config.salience == "importance"  # type: ignore[misc]

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return num_frames * budget_tokens(height * width, self.config.retention)

    def compress_frames(self, grid: VideoGrid, state: FrameState) -> tuple[Tensor, Tensor]:
        b, t, h, w, d = grid.shape
        similar = similarity_to_previous(grid.features, state.past)
        static = similar > self.config.threshold
        tokens = self.num_tokens(1, h, w)
        for_static = tokens * static.sum((2, 3)) // (h * w)

        unsalient = (-self._salience(grid, similar)).masked_fill(static, torch.inf)
        dynamic = least(unsalient, tokens - for_static)
        cells = grid.features.flatten(0, 1).flatten(1, 2)  # [B * T, H * W, D]
        home = density_peaks(
            cells,
            static.view(b * t, h * w),
            for_static.flatten(),
            self.config.neighbours,
            unit=True,
            counts_itself=False,
        )
        cell = torch.arange(h * w, device=home.device)
        home = torch.where(dynamic.view_as(home), cell, home)

        first = torch.arange(b * t, device=home.device)[:, None] * h * w
        mean = mean_cells(cells, torch.where(home >= 0, home + first, -1), home.numel()).view(b, t, h, w, d)
        merged = torch.lerp(mean, grid.features.float(), self.config.centre_weight)
        return torch.where(static[..., None], merged, grid.features.float()), home.view(b, t, h, w)

    def _salience(self, grid: VideoGrid, similar: Tensor) -> Tensor:
        if self.config.salience == "importance":
            assert grid.importance is not None
            return grid.importance.float()
        common = similarity(grid.features, grid.features.float().mean((2, 3), keepdim=True))
        return 1 - torch.where(similar.isneginf(), common, similar)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        # Cells drawn by chance are unlike their predecessors: with a threshold about their mean half are static.
        return [
            {"retention": 1 / 4},
            {"retention": 1 / 4, "threshold": 0.0},
            {"retention": 0.6, "threshold": -0.1, "salience": "novelty", "neighbours": 3},
            {"retention": 1 / 16, "threshold": -0.9, "salience": "novelty"},
        ]
