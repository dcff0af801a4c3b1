"""Density peaks among nearest neighbours (DPC-kNN), over many sets at once."""

import torch
from torch import Tensor

# Squared distances are rounded to this share of a set's mean square, so that equal cells tie whichever matrix kernel
# compared them.
DISTANCE_STEP = 1e-5

# Entries of a distance matrix that are held at once: sets are clustered in pieces, so memory does not grow with time.
ENTRIES = 1 << 24

# Below every score of a member, above those that are none.
LEAST = -1e30


def clusters(points: Tensor, member: Tensor, count: Tensor, neighbours: int) -> Tensor:
    """Cluster each set around its density peaks.

    With distances divided by the root of the number of channels, the density of a point is
    ``exp(-mean squared distance to its k nearest)``, itself among them; its score is the density times the distance to
    the nearest point of higher density, for the densest the greatest distance of all. The ``count`` highest scores are
    centres, and every point joins the nearest. Of equally dense points the earliest counts as the densest, so copies
    of a point do not become centres side by side; all ties go to the earliest.

    Args:
        points: ``[G, N, D]``, G sets.
        member: ``[G, N]`` bool; the others take no part.
        count: ``[G]`` centres of each set, at most its members.
        neighbours: k, at least 1; a smaller set takes all its members.

    Returns:
        ``[G, N]`` int64, the index of each point's centre; -1 where it is no member or its set has no centre.
    """
    sets = max(1, ENTRIES // points.shape[1] ** 2)
    pieces = zip(points.split(sets), member.split(sets), count.split(sets), strict=True)
    return torch.cat([_clusters(p, m, c, neighbours) for p, m, c in pieces])


@torch.no_grad()
def _clusters(points: Tensor, member: Tensor, count: Tensor, neighbours: int) -> Tensor:
    distance = squared_distances(points.float(), member)
    order = _scores(distance, member, neighbours).argsort(dim=1, descending=True, stable=True)
    index = torch.arange(order.shape[1], device=order.device)
    centre = torch.zeros_like(member).scatter_(1, order, index < count[:, None])
    nearest = distance.masked_fill(~centre[:, None], torch.inf).argmin(-1)
    # Among copies of one cell the nearest centre may be another copy; a centre is always its own.
    nearest = torch.where(centre, index, nearest)
    return nearest.masked_fill(~member | (count == 0)[:, None], -1)


def squared_distances(points: Tensor, member: Tensor) -> Tensor:
    """``[G, N, N]`` squared distances over the number of channels; infinite to and from points that are no members."""
    g, n, d = points.shape
    members = member.sum(1).clamp(min=1)[:, None, None]
    points = points.masked_fill(~member[:, :, None], 0.0)
    # From the mean, or what all points share would drown their differences in rounding.
    points = (points - points.sum(1, keepdim=True) / members).masked_fill(~member[:, :, None], 0.0)
    square = points.square().sum(-1) / d
    step = DISTANCE_STEP * square.sum(1)[:, None, None] / members
    step = torch.where(step > 0, step, 1.0)
    distance = square[:, :, None] + square[:, None] - 2 / d * points @ points.mT
    distance = (distance / step).round().clamp(min=0) * step
    distance.diagonal(dim1=1, dim2=2).zero_()
    return distance.masked_fill(~(member[:, :, None] & member[:, None]), torch.inf)


def _scores(distance: Tensor, member: Tensor, neighbours: int) -> Tensor:
    """``[G, N]`` logarithm of density times distance, in which no density underflows; -inf for no members."""
    nearest = distance.topk(min(neighbours, distance.shape[1]), dim=-1, largest=False).values
    known = nearest.isfinite()
    log_density = -nearest.masked_fill(~known, 0.0).sum(-1) / known.sum(-1).clamp(min=1)
    log_density = log_density.masked_fill(~member, -torch.inf)
    rank = log_density.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    denser = rank[:, None] < rank[:, :, None]
    to_denser = distance.masked_fill(~denser, torch.inf).amin(-1)
    greatest = distance.masked_fill(distance.isinf(), 0.0).amax((1, 2))
    to_denser = torch.where(to_denser.isinf(), greatest[:, None], to_denser)
    score = (to_denser.log() / 2 + log_density).clamp(min=LEAST)
    return score.masked_fill(~member, -torch.inf)
