"""Hide what its neighbours already tell."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import gumbel, hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid

Neighbours = Literal["time", "space", "both"]


class SemanticMasker(Masker):
    """Redundancy-guided masking: cells that their neighbours resemble most are hidden first.

    Video-XL-Pro (arXiv 2503.18478) names a Semantic-Guided Masking that adaptively masks redundant
    visual tokens but publishes neither definition nor code. **This definition is this project's own**:
    a cell's redundancy is its cosine similarity to its neighbours, and cells are drawn without
    replacement with probabilities proportional to ``exp(redundancy / temperature)`` until exactly
    ``ratio`` of the video is hidden. The neighbour in time is the cell at the same place one frame
    earlier (the first frame is compared with the second); those in space are the cells above, below,
    left and right of it. What differs from them stays visible, so the tokens learn to spend
    themselves on it. `AttentionMasker` is another definition, by the encoder's attention.
    """

    origin = "idea: Video-XL-Pro (arXiv 2503.18478); the definition is this project's own"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        temperature: float = 0.1
        """Randomness of the draw in units of cosine; 0 always hides the most redundant cells."""
        neighbours: Neighbours = "time"
        """``time``: the frame before; ``space``: the cells beside it in its frame; ``both``: the mean of the two."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.temperature < 0:
                raise ValueError(f"temperature={self.temperature} must not be negative; 0 is deterministic")
            if self.neighbours not in get_args(Neighbours):
                raise ValueError(f"neighbours={self.neighbours!r} is not one of {', '.join(get_args(Neighbours))}")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        parts = []
        if self.config.neighbours != "space":
            parts.append(redundancy(grid))
        if self.config.neighbours != "time":
            parts.append(redundancy_in_space(grid))
        score = torch.stack(parts).mean(0)
        if self.config.temperature > 0:
            score = score / self.config.temperature + gumbel(uniform_noise(grid, generator))
        return Mask(hide_top(score, grid, hidden_counts(self, grid)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"ratio": 0.5},
            {"ratio": 0.75, "temperature": 0.0},
            {"ratio": 0.75, "neighbours": "space"},
            {"ratio": 0.75, "neighbours": "both"},
        ]


def redundancy(grid: VideoGrid) -> Tensor:
    """``[B, T, H, W]`` float32 cosine similarity of each cell to the same place one frame earlier.

    The first frame takes the similarity to the second, or 0 in a video of one frame.
    """
    unit = F.normalize(grid.features.float(), dim=-1)
    pair = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    pair = pair.masked_fill(~grid.frame_mask[:, 1:, None, None], 0.0)
    first = pair[:, :1] if pair.shape[1] else unit.new_zeros(unit.shape[:-1])
    return torch.cat([first, pair], 1)


def redundancy_in_space(grid: VideoGrid) -> Tensor:
    """``[B, T, H, W]`` float32 mean cosine similarity of each cell to the two to four beside it in its frame.

    It is 0 in frames of one cell.
    """
    unit = F.normalize(grid.features.float(), dim=-1)
    down = (unit[:, :, 1:] * unit[:, :, :-1]).sum(-1)
    right = (unit[:, :, :, 1:] * unit[:, :, :, :-1]).sum(-1)

    def joined(down: Tensor, right: Tensor) -> Tensor:
        """What each cell gets from the pairs ``down [..., H - 1, W]`` and ``right [..., H, W - 1]`` it is part of."""
        above_and_below = F.pad(down, (0, 0, 0, 1)) + F.pad(down, (0, 0, 1, 0))
        return above_and_below + F.pad(right, (0, 1)) + F.pad(right, (1, 0))

    number = joined(torch.ones_like(down), torch.ones_like(right))
    return joined(down, right) / number.clamp(min=1)
