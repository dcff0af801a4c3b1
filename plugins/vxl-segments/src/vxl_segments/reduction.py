"""From segments and their static places to an exact number of tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.compressors.per_video import mean_cells


@dataclass(frozen=True)
class Segments:
    """A video cut into successive stretches of frames.

    Attributes:
        length: ``[S]`` int64, frames of each.
        static: ``[S, P]`` bool, the places that stand still in it. P places, the cells of a frame.
    """

    length: Tensor
    static: Tensor

    @property
    def start(self) -> Tensor:
        """``[S]`` first frame of each."""
        return self.length.cumsum(0) - self.length

    @property
    def tokens(self) -> int:
        """Tokens that are left when every static place becomes one a segment."""
        return int(self.static.sum() + ((~self.static).sum(1) * self.length).sum())

    @property
    def of_frame(self) -> Tensor:
        """``[T]`` the segment of each frame."""
        return torch.arange(len(self.length), device=self.length.device).repeat_interleave(self.length)


def apportion(size: Tensor, total: int) -> Tensor:
    """``[K]`` whole shares of ``total`` in proportion to ``size [K]``, none above its size, their sum exact.

    Running sums are rounded, so what is left over is spread over the sets and not given to the first.
    """
    every = int(size.sum())
    assert 0 <= total <= every, f"{total} of {every}"
    if not every:
        return torch.zeros_like(size)
    until = (2 * size.cumsum(0) * total + every) // (2 * every)
    return until.diff(prepend=until.new_zeros(1))


def reduce(
    features: Tensor, segments: Segments, count: int, *, neighbours: int, centre_share: float | None
) -> tuple[Tensor, Tensor]:
    """Merge what stands still over time, and then as much in space as the budget asks for.

    A static place becomes one token a segment. If more than ``count`` tokens remain, the static ones of each segment
    and the others of each frame are sets that share ``count`` in proportion to their sizes, and each is clustered to
    its share around density peaks; the cells of a set whose share is none are dropped. If fewer remain, static places
    become several tokens, each for a stretch of equal length, the longest most of them.

    Args:
        features: ``[T, H, W, D]``.
        segments: P = H * W.
        count: at most T * H * W.
        neighbours: of the clustering.
        centre_share: weight of its centre in a clustered token, the mean of its other cells has the rest; None for the
            mean of all.

    Returns:
        ``features [count, D]`` float32 and ``source [T, H, W]``, tokens ordered by the first cell each stands for.
    """
    t, h, w, _ = features.shape
    cells = features.flatten(1, 2)
    where = segments.of_frame
    cell = torch.arange(t * h * w, device=cells.device).view(t, h * w)
    standing = torch.where(segments.static[where], cell[segments.start[where]], cell)
    fits = segments.tokens <= count
    leader = _stretched(segments, cell, count) if fits else _clustered(cells, segments, count, neighbours)
    kept = leader >= 0
    names, index = leader[kept].unique(return_inverse=True)
    source = torch.full_like(leader, -1)
    source[kept] = index
    weight = None if fits or centre_share is None else _mixed(source, standing == leader, count, centre_share)
    tokens = mean_cells(cells, source, count, weight)
    return tokens, source.view(t, h, w)


def _mixed(source: Tensor, central: Tensor, count: int, centre_share: float) -> Tensor:
    """``[T, P]`` the weight of each cell in its token: those that are its centre share ``centre_share`` evenly, and the
    others the rest. Without others the centre is the token."""
    part = torch.where(source >= 0, 2 * source + (~central).long(), 2 * count)
    number = torch.bincount(part.flatten(), minlength=2 * count + 1)
    share = torch.tensor([centre_share, 1 - centre_share], device=number.device).repeat(count)
    share[::2][number[1::2] == 0] = 1.0
    return torch.cat([share / number[:-1].clamp(min=1), share.new_zeros(1)])[part]


def _clustered(cells: Tensor, segments: Segments, count: int, neighbours: int) -> Tensor:
    """``[T, P]`` the cell (counted through the video) that leads each cell's cluster, or -1 where it is dropped."""
    t, p, _ = cells.shape
    where, start = segments.of_frame, segments.start
    static = segments.static[where]
    # A segment's static set stands in line right before the set of its first frame.
    before = torch.zeros(t, dtype=torch.long, device=cells.device)
    before[start] = segments.static.sum(1)
    share = apportion(torch.stack([before, (~static).sum(1)], 1).flatten(), count).view(t, 2)
    place = torch.arange(p, device=cells.device).expand(t, p)
    mean = mean_cells(cells, (where[:, None] * p + place).masked_fill(~static, -1), len(start) * p)
    still = density_peaks(mean.view(-1, p, mean.shape[1]), segments.static, share[start, 0], neighbours)[where]
    moving = density_peaks(cells, ~static, share[:, 1], neighbours)
    frame = torch.where(static, start[where][:, None], torch.arange(t, device=cells.device)[:, None])
    centre = torch.where(static, still, moving)
    return torch.where(centre >= 0, frame * p + centre, -1)


def _stretched(segments: Segments, cell: Tensor, count: int) -> Tensor:
    """``[T, P]`` the cell that begins each cell's stretch, ``count`` in all: static places are cut where the budget
    has room for more than one token each."""
    static, length = segments.static, segments.length
    frames = length[:, None].expand_as(static)
    stretches = torch.ones_like(frames)
    stretches[static] += apportion(frames[static] - 1, count - segments.tokens)
    where = segments.of_frame
    into = torch.arange(len(where), device=where.device) - segments.start[where]
    # Stretch j of q in n frames begins at frame ceil(j * n / q).
    n, q = frames[where], stretches[where]
    begin = -(-(into[:, None] * q // n) * n // q)
    return torch.where(static[where], cell - (into[:, None] - begin) * cell.shape[1], cell)
