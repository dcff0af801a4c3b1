"""Clustering by density peaks among some of the cells of each frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Cosines are rounded to this step, so that equal cells tie whichever matrix kernel compared them.
COSINE_STEP = 1e-5

# Frames are clustered together up to this many pairs of cells, which take 4 bytes each in a handful of tensors.
PAIRS_AT_ONCE = 2**24


@torch.no_grad()
def density_peaks(cells: Tensor, member: Tensor, count: Tensor, neighbours: int) -> Tensor:
    """Cluster the member cells of every frame about ``count`` of them.

    The distance between two cells is that of their unit vectors, in float32. The density of a cell is
    ``exp(-mean of the squared distances to its nearest neighbours)``, of which there are ``neighbours``, or all other
    members where they are fewer. Its separation is the distance to the nearest *denser* member, and for the densest one
    the distance to the farthest member; among equally dense cells the earlier counts as denser. Centres are the cells
    of highest density times separation, the earliest among equals; every other member goes to its nearest centre.

    After Rodriguez and Laio (Science 344, 2014), with the density by nearest neighbours of Du et al. (2016).

    Args:
        cells: ``[N, C, D]``.
        member: ``[N, C]`` bool, the cells that take part.
        count: ``[N]`` clusters of each frame, at most its members.

    Returns:
        ``[N, C]`` int64: the centre of each member, itself where it is one; -1 for cells that take no part, and for
        all cells of a frame without clusters.
    """
    at_once = max(1, PAIRS_AT_ONCE // cells.shape[1] ** 2)
    parts = zip(cells.split(at_once), member.split(at_once), count.split(at_once), strict=True)
    return torch.cat([_density_peaks(*part, neighbours) for part in parts])


def _density_peaks(cells: Tensor, member: Tensor, count: Tensor, neighbours: int) -> Tensor:
    n, c, _ = cells.shape
    unit = F.normalize(cells.float(), dim=-1)
    cosine = (unit @ unit.mT / COSINE_STEP).round() * COSINE_STEP
    squared = (2 - 2 * cosine).clamp(min=0)  # [N, C, C], from a cell (row) to another (column)
    itself = torch.eye(c, dtype=torch.bool, device=cells.device)
    inf = torch.inf

    near = squared.masked_fill(~member[:, None] | itself, inf).topk(min(neighbours, c - 1), largest=False).values
    there = near.isfinite()
    density = (-near.where(there, 0).sum(-1) / there.sum(-1).clamp(min=1)).exp()

    of_row, of_column = density[:, :, None], density[:, None]
    denser = (of_column > of_row) | ((of_column == of_row) & itself.new_ones(c, c).tril(-1))
    to_denser = squared.masked_fill(~(denser & member[:, None]), inf).amin(-1)
    farthest = squared.masked_fill(~member[:, None], 0).amax(-1)
    separation = torch.where(to_denser.isfinite(), to_denser, farthest).sqrt()

    score = (density * separation).masked_fill(~member, -1)
    centre = score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1) < count[:, None]
    nearest = squared.masked_fill(~centre[:, None], inf).argmin(-1)
    home = torch.where(centre, torch.arange(c, device=cells.device), nearest)
    return home.masked_fill(~member | (count == 0)[:, None], -1)
