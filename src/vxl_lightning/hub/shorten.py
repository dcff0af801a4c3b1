"""A batch of sequences made shorter: places taken out, others put where they stood, padded to one length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Shortened:
    """What stands where afterwards.

    Attributes:
        place: ``[B, L']`` int64, the place in the original sequence that it stands at.
        token: ``[B, L']`` int64, which of all tokens it is, counted through the rows, or -1 for what was there before.
        mask: ``[B, L']`` bool, False at padding and what was masked before.
    """

    place: Tensor
    token: Tensor
    mask: Tensor

    def take(self, original: Tensor) -> Tensor:
        """What belongs to the places: ``[..., B, L]`` becomes ``[..., B, L']``."""
        return original.gather(-1, self.place.expand(*original.shape[:-1], -1))

    def filled(self, original: Tensor, tokens: Tensor) -> Tensor:
        """``[B, L, D]`` with ``tokens [N, D]`` put in: ``[B, L', D]``."""
        rows = torch.arange(len(self.place), device=original.device)[:, None]
        found = original[rows, self.place]
        found[self.token >= 0] = tokens.to(original.dtype)[self.token[self.token >= 0]]
        return found


def margins(mask: Tensor) -> tuple[bool, Tensor]:
    """Whether padding comes first (it does unless all rows begin with something and some end with nothing), and how
    much of it ``[B]`` each row of ``mask [B, L]`` has."""
    seen = mask.bool()
    left = bool(seen[:, -1].all()) or not bool(seen[:, 0].all())
    inward = seen if left else seen.flip(-1)
    return left, (inward.long().cumsum(-1) == 0).sum(-1)


def shorten(mask: Tensor, gone: Sequence[Tensor], stands: Sequence[Tensor]) -> Shortened:
    """Take places out of a batch of sequences and put tokens in.

    What stays and what is put in is in the order of places; tokens at one place keep their own order. Rows are padded
    where they were, to the longest; padding that all rows share stays, so that without any change nothing changes.

    Args:
        mask: ``[B, L]``, zero at padding.
        gone: of every row, the places that are taken out.
        stands: of every row, ``[n]`` the place of each token that is put in.
    """
    length, device = mask.shape[1], mask.device
    left, margin = margins(mask)
    places, tokens = [], []
    count = 0
    for row, (out, put) in enumerate(zip(gone, stands, strict=True)):
        stays = torch.ones(length, dtype=torch.bool, device=device)
        stays[out] = False
        pad = int(margin[row])
        stays[:pad] &= not left
        stays[length - pad :] &= left
        here = stays.nonzero()[:, 0]
        place = torch.cat([here, put])
        order = place.argsort(stable=True)
        token = torch.cat([torch.full_like(here, -1), torch.arange(count, count + len(put), device=device)])
        places.append(place[order])
        tokens.append(token[order])
        count += len(put)
    width = max(map(len, places)) + int(margin.min())
    return Shortened(*_padded(mask, places, tokens, margin.tolist(), left, width))


def _padded(
    mask: Tensor, places: list[Tensor], tokens: list[Tensor], margin: list[int], left: bool, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    length = mask.shape[1]
    rows = []
    for row, (place, token, pad) in enumerate(zip(places, tokens, margin, strict=True)):
        extra = torch.arange(width - len(place), device=mask.device)
        # Padding stands where padding was, as far as there was any.
        extra = (extra + pad - len(extra)).clamp(min=0) if left else (extra + length - pad).clamp(max=length - 1)
        nothing = torch.zeros_like(extra, dtype=torch.bool)
        parts = [(extra, torch.full_like(extra, -1), nothing), (place, token, mask[row, place].bool())]
        rows.append([torch.cat(pair) for pair in zip(*(parts if left else parts[::-1]), strict=True)])
    place, token, seen = (torch.stack(column) for column in zip(*rows, strict=True))
    return place, token, seen


def nearest(position: Tensor, size: tuple[int, int, int]) -> Tensor:
    """``[n]`` the cell, counted through a grid of ``size`` (T, H, W), nearest to each centroid of ``position [n, 3]``;
    halves go to the earlier one."""
    limit = torch.tensor(size, device=position.device) - 1
    # Centroids are sums of whole numbers over their count: what is left of a half by rounding is no more than this.
    cell = (position - 0.5 - 1e-4).ceil().long().clamp(min=0)
    t, y, x = torch.minimum(cell, limit).unbind(-1)
    return (t * size[1] + y) * size[2] + x
