"""Which cells of a clip are targets: the partitions of Video Token Merging, to an exact count.

Cells are counted in raster order: frame by frame, row by row.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_merging.core import SIMILARITY_STEP

DENSE, SPARSE = 3, 1
"""Targets a cell in the dense and in the sparse region: the paper's factors gamma / 2 and 3 / 2 gamma."""


def every(cells: int, count: int) -> Tensor:
    """``[count]`` slots at equal steps through ``cells``, from the first one on."""
    return torch.arange(count) * cells // count


def regions(frames: int, height: int, width: int, count: int, *, dense_centre: bool) -> Tensor:
    """``[count]`` slots, three times as dense in the centre of every frame as outside, or the other way round.

    The centre is half as many rows and columns, at least one. Within a region targets are at equal steps. A region too
    small for its part is filled, and the other one takes the rest.
    """
    rows, cols = max(1, height // 2), max(1, width // 2)
    top, left = (height - rows) // 2, (width - cols) // 2
    inside = torch.zeros(frames, height, width, dtype=torch.bool)
    inside[:, top : top + rows, left : left + cols] = True
    centre, around = (mask.flatten().nonzero()[:, 0] for mask in (inside, ~inside))
    ours, theirs = (DENSE, SPARSE) if dense_centre else (SPARSE, DENSE)
    share = len(centre) * ours / (len(centre) * ours + len(around) * theirs)
    part = min(max(int(count * share + 0.5), count - len(around)), len(centre))
    return torch.cat([centre[every(len(centre), part)], around[every(len(around), count - part)]]).sort().values


def drawn(scores: Tensor, count: int, index: Tensor, *, temperature: float, seed: int) -> Tensor:
    """``[G, count]`` slots drawn without replacement from ``softmax(scores / temperature)``, ascending.

    Drawing is adding Gumbel noise and taking the highest. The noise of a clip follows from ``seed`` and its place in
    its video alone, so that the same video always gives the same tokens. At temperature 0 the highest scores are taken.

    Args:
        scores: ``[G, N]``.
        count: targets a clip.
        index: ``[G]`` each clip's place in its video.
        temperature: 1 is the softmax of the scores as they are.
        seed: of the noise.
    """
    scores = (scores.float() / SIMILARITY_STEP).round() * SIMILARITY_STEP
    if temperature:
        places = index.tolist()
        # NumPy mixes the two numbers into one seed; torch's CPU generator would use only their low 32 bits.
        noise = {i: np.random.default_rng((seed, i)).gumbel(size=scores.shape[1]) for i in set(places)}
        gumbel = torch.from_numpy(np.stack([noise[i] for i in places]).astype(np.float32))
        scores = scores + temperature * gumbel.to(scores.device)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values


def change(features: Tensor) -> Tensor:
    """``[G, F, H, W]``: 1 minus the cosine, float32, of every cell and itself one frame before.

    The first frame of a clip takes what changes after it; a single frame does not change.
    """
    unit = F.normalize(features.float(), dim=-1)
    if unit.shape[1] == 1:
        return torch.zeros_like(unit[..., 0])
    later = 1 - (unit[:, 1:] * unit[:, :-1]).sum(-1)
    return torch.cat([later[:, :1], later], 1)
