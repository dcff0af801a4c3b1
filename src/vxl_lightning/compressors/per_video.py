"""Compressors that treat a video as a whole, and how cells become tokens."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.tokens import VideoGrid, VideoTokens


class VideoCompressor(Compressor):
    """A compressor that looks at all frames of a video at once, one video after another.

    A subclass writes ``num_tokens`` and ``compress_video``; batches, padding and packing are handled here.
    """

    @abstractmethod
    def compress_video(self, video: VideoGrid, query: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compress one video.

        Args:
            video: a batch of one, without padding: ``[1, T, H, W, D]``.
            query: ``[Q, D]`` or None.

        Returns:
            ``features [n, D]`` in the order of time and place, and ``source [T, H, W]``: for every cell the token in
            ``0..n-1`` that carries it, or -1.
        """

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        b, t, h, w, _ = grid.shape
        source = torch.full((b, t, h, w), -1, dtype=torch.long, device=grid.features.device)
        parts = []
        for b, frames in enumerate(grid.num_frames.tolist()):
            video = _one(grid, b, frames)
            features, carrier = self.compress_video(video, None if query is None else query[b])
            source[b, :frames] = carrier
            parts.append(features.to(grid.features.dtype))
        lengths = torch.tensor([len(part) for part in parts], device=source.device)
        features = torch.cat(parts) if len(parts) > 1 else parts[0]  # of one part it would be a copy
        return VideoTokens.carry(features, lengths, source, grid)


def best_cells(score: Tensor, count: int) -> Tensor:
    """Bool like ``score``: its ``count`` highest entries, the earliest among equals."""
    order = score.float().flatten().argsort(descending=True, stable=True)
    keep = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    keep[order[:count]] = True
    return keep.view(score.shape)


def kept_cells(features: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of ``features [T, H, W, D]`` where ``keep [T, H, W]`` is True, unchanged and in order, as
    `VideoCompressor.compress_video` returns them."""
    source = torch.where(keep, keep.flatten().cumsum(0).view(keep.shape) - 1, -1)
    return features[keep], source


def mean_cells(features: Tensor, source: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """``[count, D]`` float32: the mean of the cells of ``features [..., D]`` that ``source [...]`` gives each token.

    A token without cells is zero. With ``weight [...]``, their sum with these weights instead; no gradient goes through
    the weights.
    """
    token = source.flatten()
    cell = token.argsort(stable=True)
    number = torch.bincount(token[token >= 0], minlength=count)
    cell = cell[len(cell) - int(number.sum()) :]  # those that are carried, token by token
    cells = features.flatten(0, -2)
    share = None if weight is None else weight.flatten()[cell]
    if cells.dtype != torch.float32:
        cells, cell = cells[cell].float(), torch.arange(len(cell), device=cell.device)
    # Reads every cell once where it lies; a gathered copy of the cells would cost more than their sums.
    mode = "mean" if share is None else "sum"
    return F.embedding_bag(cell, cells, number.cumsum(0) - number, mode=mode, per_sample_weights=share)


def _one(grid: VideoGrid, video: int, frames: int) -> VideoGrid:
    """Video ``video`` alone, its padding cut off."""

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[video : video + 1, :frames]

    features, times, mask = cut(grid.features), cut(grid.times), cut(grid.frame_mask)
    assert features is not None and times is not None and mask is not None
    return VideoGrid(features, times, mask, cut(grid.importance), cut(grid.motion))
