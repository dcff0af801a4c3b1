"""The one step that all of the family is made of: some tokens are targets, and others are merged into them."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITY_STEP = 1e-5
"""Similarities are rounded to it, so that equal cells tie whichever matrix kernel compared them."""

SMALLEST_NORM = 1e-12

Mean = Literal["size", "plain"]
"""What a target becomes: the mean weighted by the cells behind each token, or that in which each token counts once."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Where the merging of G clips of C cells stands.

    Attributes:
        tokens: ``[G, N, D]`` float32.
        weight: ``[G, N]`` float32, how many cells each stands for.
        carrier: ``[G, C]`` int64, the token in ``0..N-1`` that carries each cell.
    """

    tokens: Tensor
    weight: Tensor
    carrier: Tensor

    @classmethod
    def nothing(cls, cells: Tensor) -> "Merged":
        """Every cell of ``[G, C, D]`` is its own token."""
        g, c, _ = cells.shape
        return cls(cells.float(), cells.new_ones(g, c, dtype=torch.float32), _range(c, cells).expand(g, c))


def merge_into(now: Merged, target: Tensor, merges: int, *, keys: Tensor | None = None, mean: Mean = "size") -> Merged:
    """Merge the ``merges`` sources that are most like a target into the target that each is most like.

    Similarity is the cosine, in float32; the earliest wins among equals. Whatever is not merged, the targets among it,
    stays in order.

    Args:
        now: N tokens a clip.
        target: ``[G, M]`` ascending slots in ``0..N-1``; the tokens in all others are sources.
        merges: at most ``N - M``, which merges every source.
        keys: ``[G, N, C]`` what is compared; the tokens themselves where not given.
        mean: what a target becomes.

    Returns:
        ``N - merges`` tokens a clip.
    """
    if merges == 0:
        return now
    g, n, _ = now.tokens.shape
    is_target = torch.zeros(g, n, dtype=torch.bool, device=target.device).scatter_(1, target, True)
    source = (~is_target).nonzero()[:, 1].view(g, -1)
    compared = now.tokens if keys is None else keys.float()
    with torch.autocast(target.device.type, enabled=False):
        links, best = _link(_take(compared, source), _take(compared, target), merges)
    # Targets and unmerged sources stay in their slots; a merged source's slot leads to its target's.
    slot = _range(n, target).repeat(g, 1)
    slot.scatter_(1, source, torch.where(links, target.gather(1, best), source))
    moved = ((slot == _range(n, target)).cumsum(1) - 1).gather(1, slot)
    behind = now.weight if mean == "size" else torch.ones_like(now.weight)
    share = behind / _total(behind, moved, n - merges).gather(1, moved)
    return Merged(
        _weighted(now.tokens, share, moved, n - merges),
        _total(now.weight, moved, n - merges),
        moved.gather(1, now.carrier),
    )


def merge(cells: Tensor, count: int, *, mean: Mean = "size", heads: int = 1) -> tuple[Tensor, Tensor]:
    """Merge ``[G, C, D]`` cells to ``count`` tokens a clip in rounds of bipartite soft matching.

    In a round every other token is a target; as many of the others are merged as the count still asks for, at most all
    of them. Tokens are compared as the mean of their channels over ``heads``.

    Returns:
        ``[G, count, D]`` float32 tokens in the order of their slots, and ``[G, C]`` the token of each cell.
    """
    now = Merged.nothing(cells)
    while (n := now.tokens.shape[1]) > count:
        target = _range(n, cells)[1::2].expand(len(cells), -1)
        keys = now.tokens.view(len(cells), n, heads, -1).mean(2) if heads > 1 else None
        now = merge_into(now, target, min(n - count, n - n // 2), keys=keys, mean=mean)
    return now.tokens, now.carrier


def check_heads(heads: int, channels: int) -> None:
    """Refuse ``heads`` that do not divide the channels, and name some that do.

    Raises:
        ValueError: they do not.
    """
    if channels % heads:
        fits = ", ".join(str(n) for n in range(1, 2 * heads) if channels % n == 0)
        raise ValueError(f"heads={heads} does not divide the {channels} channels of the grid; some that do: {fits}")


@torch.no_grad()
def _link(sources: Tensor, targets: Tensor, merges: int) -> tuple[Tensor, Tensor]:
    """``[G, S]`` bool, which sources are merged, and ``[G, S]`` the target that each is most like."""
    similarity = sources @ targets.mT
    similarity /= _norm(sources)[:, :, None] * SIMILARITY_STEP
    similarity /= _norm(targets)[:, None, :]
    highest, best = similarity.round_().max(-1)
    chosen = highest.argsort(dim=1, descending=True, stable=True)[:, :merges]
    return torch.zeros_like(highest, dtype=torch.bool).scatter_(1, chosen, True), best


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm.clamp(min=SMALLEST_NORM)


def _weighted(tokens: Tensor, share: Tensor, moved: Tensor, count: int) -> Tensor:
    """``[G, count, D]``: of all ``tokens [G, N, D]`` that go to one place by ``moved [G, N]`` the sum, each times its
    ``share [G, N]``; in the order of their slots, so that it is the same every time on any device."""
    g, n, d = tokens.shape
    order = moved.argsort(dim=1, stable=True)
    first = torch.searchsorted(moved.gather(1, order), _range(count, moved).repeat(g, 1))
    clip = _range(g, moved)[:, None] * n
    sums = F.embedding_bag(
        (order + clip).flatten(),
        tokens.reshape(g * n, d),
        (first + clip).flatten(),
        mode="sum",
        per_sample_weights=share.gather(1, order).flatten(),
    )
    return sums.view(g, count, d)


def _total(weight: Tensor, moved: Tensor, count: int) -> Tensor:
    """``[G, count]``: the sum of the ``weight [G, N]``, whole numbers, of what goes to one place by ``moved``."""
    return weight.new_zeros(len(weight), count).scatter_add_(1, moved, weight)


def _take(x: Tensor, slot: Tensor) -> Tensor:
    """Slots ``[G, M]`` of ``x [G, N, D]``."""
    row = slot + _range(len(x), slot)[:, None] * x.shape[1]
    return x.flatten(0, 1)[row]


def _range(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device)
