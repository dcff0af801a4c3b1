"""Hide cells uniformly at random."""

import torch
from torch import Tensor

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.tokens import VideoGrid


class RandomMasker(Masker):
    """Every cell of a video is as likely to be hidden as any other (the masking of MAE, arXiv 2111.06377).

    The count is exact in every video, as there; the draw is over all frames of the video at once,
    so single frames may lose more or less than the ratio.
    """

    origin = "MAE (arXiv 2111.06377), written from the paper"

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        return Mask(hide_top(uniform_noise(grid, generator), grid, hidden_counts(self, grid)))


def hidden_counts(masker: Masker, grid: VideoGrid) -> list[int]:
    """Cells to hide in each video, by its own number of frames."""
    _, _, h, w, _ = grid.shape
    return [masker.num_hidden(n, h, w) for n in grid.num_frames.tolist()]


def uniform_noise(grid: VideoGrid, generator: torch.Generator) -> Tensor:
    """``[B, T, H, W]`` uniform in [0, 1), drawn for the valid frames alone, video after video.

    Drawing only what is used keeps a video's mask independent of the padding its batch brought.
    """
    b, t, h, w, _ = grid.shape
    noise = torch.zeros(b, t, h, w)
    for row, n in zip(noise, grid.num_frames.tolist(), strict=True):
        row[:n] = torch.rand(n, h, w, generator=generator, device=generator.device)
    return noise.to(grid.features.device)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise made of uniform noise.

    The k largest of log-weights plus such noise are a draw of k without replacement, in proportion to the weights.
    """
    return -(-uniform.clamp(1e-7, 1 - 1e-7).log()).log()
