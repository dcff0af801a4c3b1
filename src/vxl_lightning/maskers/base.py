"""The masker contract: which grid cells to hide while a compressor learns to reconstruct."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.tokens import VideoGrid


@dataclass(frozen=True, eq=False)
class Mask:
    """Hidden cells.

    Attributes:
        hidden: ``[B, T, H, W]`` bool; the same count in every video of equal length, never padding.
        log_prob: ``[B, T, H, W]`` log-probability of each cell to be shown, for maskers that learn, or None. Finite at
            padding too. Training lowers minus its mean product with the reconstruction error over hidden cells (see
            `sampling_loss`), so that it grows where the error is large.
        aux_loss: scalar the training loss adds, or None.
    """

    hidden: Tensor
    log_prob: Tensor | None = None
    aux_loss: Tensor | None = None


class Masker(nn.Module, ABC):
    """Chooses hidden cells. Built as ``Class(Config(...), dim=D)``; a subclass writes ``mask``.

    Traits: ``trainable``, ``needs_importance``, ``needs_motion``, ``origin`` as for compressors.
    """

    trainable: ClassVar[bool] = False
    needs_importance: ClassVar[bool] = False
    needs_motion: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        ratio: float = 0.5
        """Fraction of cells to hide, in (0, 1)."""

        def __post_init__(self) -> None:
            if not 0 < self.ratio < 1:
                raise ValueError(f"ratio={self.ratio} is not in (0, 1); 0.5 hides half of the cells")

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = dim

    def num_hidden(self, num_frames: int, height: int, width: int) -> int:
        """Exact number of cells hidden in a video of this size: never none, never all."""
        cells = num_frames * height * width
        return min(max(int(cells * self.config.ratio + 0.5), 1), cells - 1)

    @abstractmethod
    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        """The method itself. The grid has been checked."""

    def forward(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        """Hide ``num_hidden`` cells of every video; the generator is the only source of chance.

        Raises:
            ValueError: missing side information, NaN, or a video of one cell.
        """
        name = type(self).__name__
        if self.needs_importance and grid.importance is None:
            raise ValueError(f"{name} needs VideoGrid.importance; choose an encoder that provides it")
        if self.needs_motion and grid.motion is None:
            raise ValueError(f"{name} needs VideoGrid.motion")
        grid.check()
        b, t, h, w, _ = grid.shape
        if int(grid.num_frames.min()) * h * w < 2:
            raise ValueError(f"{name} cannot hide part of a video that is a single cell")
        return self.mask(grid, generator)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"ratio": 0.5}, {"ratio": 0.75}]


def hide_top(score: Tensor, grid: VideoGrid, count: list[int]) -> Tensor:
    """Hide the ``count[b]`` cells of highest ``score [B, T, H, W]``, earliest first among equals; padding never."""
    valid = grid.frame_mask[:, :, None, None].expand_as(score)
    ranked = score.float().masked_fill(~valid, float("-inf")).flatten(1)
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < torch.tensor(count, device=rank.device)[:, None]).view_as(score)
