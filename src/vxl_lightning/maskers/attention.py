"""Hide what the encoder attends to least, or most."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import gumbel, hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid

Hide = Literal["unimportant", "important"]


class AttentionMasker(Masker):
    """Semantic-guided masking by the encoder's attention: cells of little attention are hidden first.

    Video-XL-Pro (arXiv 2503.18478) names a Semantic-Guided Masking but publishes neither definition nor code. **This is
    a second definition of this project's own**, beside that by redundancy (`SemanticMasker`): what the encoder attends
    to stays visible. Cells to show are drawn without replacement in proportion to ``importance ** (1 / temperature)``,
    with `VideoGrid.importance`, the attention mass that the encoder gave each cell, until exactly ``ratio`` of the
    video is hidden. With ``hide="important"`` the cells to hide are drawn so: what matters must be rebuilt from what
    does not.
    """

    needs_importance = True
    origin = "idea: Video-XL-Pro (arXiv 2503.18478); the definition is this project's own"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        hide: Hide = "unimportant"
        """``unimportant``: what has much attention stays visible; ``important``: it is hidden."""
        temperature: float = 1.0
        """Randomness of the draw: 1 draws in proportion to attention, 0 always takes the cells of most attention."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.hide not in get_args(Hide):
                raise ValueError(f"hide={self.hide!r} is not one of {', '.join(get_args(Hide))}")
            if self.temperature < 0:
                raise ValueError(f"temperature={self.temperature} must not be negative; 0 is deterministic")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        assert grid.importance is not None
        # The log of no attention at all is finite, so that such cells are still drawn among themselves.
        weight = grid.importance.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        if self.config.temperature > 0:
            weight = weight / self.config.temperature + gumbel(uniform_noise(grid, generator))
        score = weight if self.config.hide == "important" else -weight
        return Mask(hide_top(score, grid, hidden_counts(self, grid)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.75, "hide": "important"}, {"ratio": 0.75, "temperature": 0.0}]
