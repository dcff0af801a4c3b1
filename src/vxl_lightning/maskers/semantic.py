"""Hide what the neighbouring frame already tells."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import gumbel, hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid


class SemanticMasker(Masker):
    """Redundancy-guided masking: cells that changed least since the previous frame are hidden first.

    Video-XL-Pro (arXiv 2503.18478) names a Semantic-Guided Masking that adaptively masks redundant
    visual tokens but publishes neither definition nor code. **This definition is this project's own**:
    a cell's redundancy is its cosine similarity to the cell at the same place one frame earlier (the
    first frame is compared with the second), and cells are drawn without replacement with
    probabilities proportional to ``exp(redundancy / temperature)`` until exactly ``ratio`` of the
    video is hidden. What changes stays visible, so the tokens learn to spend themselves on it.
    """

    origin = "idea: Video-XL-Pro (arXiv 2503.18478); the definition is this project's own"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        temperature: float = 0.1
        """Randomness of the draw in units of cosine; 0 always hides the most redundant cells."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.temperature < 0:
                raise ValueError(f"temperature={self.temperature} must not be negative; 0 is deterministic")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        score = redundancy(grid)
        if self.config.temperature > 0:
            score = score / self.config.temperature + gumbel(uniform_noise(grid, generator))
        return Mask(hide_top(score, grid, hidden_counts(self, grid)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.75, "temperature": 0.0}]


def redundancy(grid: VideoGrid) -> Tensor:
    """``[B, T, H, W]`` float32 cosine similarity of each cell to the same place one frame earlier.

    The first frame takes the similarity to the second, or 0 in a video of one frame.
    """
    unit = F.normalize(grid.features.float(), dim=-1)
    pair = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    pair = pair.masked_fill(~grid.frame_mask[:, 1:, None, None], 0.0)
    first = pair[:, :1] if pair.shape[1] else unit.new_zeros(unit.shape[:-1])
    return torch.cat([first, pair], 1)
