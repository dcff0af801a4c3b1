"""Of einops what the originals use, so that comparing with them does not need it."""

import math
import re
from collections.abc import Sequence

from torch import Tensor


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """As einops.rearrange, for patterns of names and parenthesised groups of names."""
    before, after = (_axes(side) for side in pattern.split("->"))
    shape: list[int] = []
    for size, names in zip(x.shape, before, strict=True):
        known = math.prod(sizes[n] for n in names if n in sizes) if len(names) > 1 else 1
        shape += [size] if len(names) == 1 else [sizes.get(n, size // known) for n in names]
    flat = [name for names in before for name in names]
    moved = x.reshape(shape).permute([flat.index(name) for names in after for name in names])
    lengths = dict(zip(flat, shape, strict=True))
    return moved.contiguous().view([math.prod(lengths[name] for name in names) for names in after])


def rearrange_many(xs: Sequence[Tensor], pattern: str, **sizes: int) -> list[Tensor]:
    """As einops_exts.rearrange_many."""
    return [rearrange(x, pattern, **sizes) for x in xs]


def repeat(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """As einops.repeat, for new axes of given sizes among the old ones in their order."""
    before, after = (pattern_side.split() for pattern_side in pattern.split("->"))
    lengths = dict(zip(before, x.shape, strict=True)) | sizes
    return x.reshape([lengths[n] if n in before else 1 for n in after]).expand([lengths[n] for n in after])


def _axes(side: str) -> list[list[str]]:
    return [(group or name).split() for group, name in re.findall(r"\(([^)]*)\)|(\w+)", side)]
