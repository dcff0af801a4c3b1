"""Clustering around density peaks among nearest neighbours (DPC-kNN), of many sets at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.pieces import numbers_at_once

# Squared distances are rounded to this share of a set's variance, so that equal points tie whichever matrix kernel
# compared them.
DISTANCE_STEP = 1e-5

# Below every score of a member, above those that are none.
LEAST = -1e30


@torch.no_grad()
def density_peaks(
    points: Tensor, member: Tensor, count: Tensor, neighbours: int, *, unit: bool = False, counts_itself: bool = True
) -> Tensor:
    """Cluster the members of each set around the ``count`` of them that are densest and far from anything denser.

    With distances divided by the root of the number of channels, the density of a point is ``exp(-mean squared distance
    to its nearest neighbours)``; its score is the density times the distance to the nearest denser point, and that of
    the densest is the highest. The highest scores are centres, and every other member joins the nearest. Of equally
    dense points the earliest counts as the densest, so copies of a point do not become centres side by side; all ties
    go to the earliest. Distances are float32, and only members are compared: the cost is the sum of their squares.

    After Rodriguez and Laio (Science 344, 2014), with the density by nearest neighbours of Du et al. (2016).

    Args:
        points: ``[G, N, D]``, G sets.
        member: ``[G, N]`` bool; the others take no part.
        count: ``[G]`` centres of each set, at most its members.
        neighbours: at least 1; a smaller set takes all its members.
        unit: points are compared as unit vectors, their distances undivided.
        counts_itself: a point is the first of its own neighbours.

    Returns:
        ``[G, N]`` int64, the index of each point's centre, its own where it is one; -1 where it is no member or its set
        has no centre.
    """
    members = member.sum(1)
    home = torch.arange(member.shape[1], device=member.device).where(member & (count > 0)[:, None], -1)
    # Where every member is a centre there is nothing to find. The largest sets come first: alike in size, they go
    # together with little padding; and not all at once, so memory does not grow with their number.
    sets = ((count > 0) & (count < members)).nonzero()[:, 0]
    sets = sets[members[sets].argsort(descending=True, stable=True)]
    sizes = members[sets].tolist()
    while sizes:
        width = sizes[0]
        now = max(1, numbers_at_once(points.device) // (width * max(width, points.shape[2])))
        piece, sets, sizes = sets[:now, None], sets[now:], sizes[now:]
        slot = _first(member[piece[:, 0]], width)
        real = torch.arange(width, device=slot.device) < members[piece]
        cells = points[piece, slot].float()
        if unit:
            cells = F.normalize(cells, dim=-1) * cells.shape[2] ** 0.5
        centre = _cluster(cells, real, count[piece], neighbours, counts_itself)
        home[piece, slot] = slot.gather(1, centre).where(real, -1)
    return home


def _cluster(points: Tensor, member: Tensor, count: Tensor, neighbours: int, counts_itself: bool) -> Tensor:
    """The centre of each point, of sets with ``count [G, 1]`` each; anything for those that are no members."""
    distance, step = _squared_distances(points, member)
    score = _scores(distance, step, member, neighbours, counts_itself)
    order = score.argsort(dim=1, descending=True, stable=True)
    index = torch.arange(order.shape[1], device=order.device)
    centre = torch.zeros_like(member).scatter_(1, order, index < count)
    columns = _first(centre, int(count.max()))
    to_centre = distance.gather(1, columns[:, :, None].expand(-1, -1, len(index)))
    to_centre.masked_fill_(~centre.gather(1, columns)[:, :, None], torch.inf)
    # Among copies of one point the nearest centre may be another copy; a centre is always its own.
    return torch.where(centre, index, columns.gather(1, to_centre.argmin(1)))


def _squared_distances(points: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """``[G, N, N]`` squared distances over the number of channels, in whole steps, and the step ``[G, 1, 1]``.

    Infinite to points that are no members.
    """
    share = member / member.sum(1, keepdim=True)
    # From the mean, or what all points share would drown their differences in rounding.
    points = points - share[:, None] @ points
    distance = points @ points.mT
    square = distance.diagonal(dim1=1, dim2=2).clone()
    step = DISTANCE_STEP * (square * share).sum(1)[:, None, None]
    step = torch.where(step > 0, step, 1.0)
    distance.mul_(-2 / step).add_(square[:, None] / step).add_(square[:, :, None] / step).round_().clamp_(min=0)
    return distance.masked_fill_(~member[:, None], torch.inf), step / points.shape[2]


def _scores(distance: Tensor, step: Tensor, member: Tensor, neighbours: int, counts_itself: bool) -> Tensor:
    """``[G, N]`` logarithm of density times distance, in which no density underflows; -inf for no members."""
    # At a distance of 0 from itself, a point is always there.
    itself = 0 if counts_itself else 1
    near = distance.topk(min(neighbours + itself, distance.shape[2]), largest=False, sorted=False).values
    known = near.isfinite()
    density = -near.where(known, 0.0).sum(-1) * step[:, 0] / (known.sum(-1) - itself).clamp(min=1)
    density = density.masked_fill(~member, -torch.inf)  # its logarithm
    rank = density.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    # Nothing is denser than the densest, so its distance is infinite and its score the highest.
    to_denser = distance.where(rank[:, None] < rank[:, :, None], torch.inf).amin(-1)
    score = ((to_denser * step[:, 0]).log() / 2 + density).clamp(min=LEAST)
    return score.masked_fill(~member, -torch.inf)


def _first(chosen: Tensor, count: int) -> Tensor:
    """``[G, count]`` indices of the first of each row of ``chosen [G, N]``, then of the first others."""
    return chosen.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
