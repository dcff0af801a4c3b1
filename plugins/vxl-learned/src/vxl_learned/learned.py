"""What the learned compressors share: a table of queries, their budget, and who carries which cell."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vxl_lightning.compressors.base import GroupCompressor, Groups, budget_tokens

# Shares of attention are compared in steps of this relative size, so that equal ones tie whichever kernel made them.
SHARE_STEP = 1e-4


class LearnedTokens(GroupCompressor):
    """Each token of a group is made by one row of a learned table, and so many rows are used as retention asks for.

    A subclass has ``table`` in its Config, the rows to learn. The first of them are used: under a smaller retention
    the same rows as under a larger one, and fewer.
    """

    trainable = True
    table: ClassVar[str]
    """Name of the Config field that holds the number of rows."""

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames that are compressed together."""

        def __post_init__(self) -> None:
            super().__post_init__()
            at_least_one(self, "frames_per_group")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group

    def tokens_per_group(self, height: int, width: int) -> int:
        cells = self.group_size * height * width
        count = budget_tokens(cells, self.config.retention)
        rows: int = getattr(self.config, self.table)
        if count > rows:
            raise ValueError(
                f"retention={self.config.retention:.6g} asks for {count} tokens from a group of {cells} cells, but "
                f"{self.table}={rows} are learned; set {self.table} to at least {count}, or retention to at most "
                f"{rows / cells:.6g}"
            )
        return count


def at_least_one(config: Any, *names: str) -> None:
    """Refuses counts below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1")


def open_cells(groups: Groups) -> Tensor:
    """``[G, F * H * W]`` bool, False for cells of frames that only fill a video's last group."""
    g, f, h, w, _ = groups.features.shape
    return groups.valid[:, :, None].expand(g, f, h * w).flatten(1)


def float_anyway(module: nn.Module, groups: Groups) -> bool:
    """Whether a module computes in float32 by itself, so that `in_float` would give the same once more."""
    plain = not torch.is_autocast_enabled(groups.features.device.type)
    return plain and all(x.dtype == torch.float32 for x in (groups.features, *module.parameters()))


def in_float(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """What a module gives for float32 inputs with its parameters taken to float32, under autocast too."""
    weights = {name: p.float() for name, p in module.named_parameters()}
    with torch.autocast(next(iter(weights.values())).device.type, enabled=False):
        out: Tensor = functional_call(module, weights, args, kwargs)
    return out


@torch.no_grad()
def carriers(attention: Tensor, open_: Tensor) -> Tensor:
    """Which token carries each cell: the one that spends the largest share of its attention on it.

    Among equals the first. A token that no cell fell to takes one: in order, such tokens take the cells whose carriers
    attend to them least, and no carrier loses the cell it attends to most. So every token carries a cell where there
    are as many cells as tokens; in a group of fewer the last tokens without one stay so.

    Args:
        attention: ``[G, K, N]`` float32, not negative, of each token to each cell.
        open_: ``[G, N]`` bool; the others are carried by none.

    Returns:
        ``[G, N]`` int64, a token or -1.
    """
    g, k, n = attention.shape
    share = attention / attention.sum(-1, keepdim=True).clamp(min=1e-20)
    steps = (share.clamp(min=1e-20).log() / SHARE_STEP).round()
    source = steps.argmax(1)
    most = steps.amax(1).masked_fill(~open_, float("-inf"))
    place = torch.arange(n, device=source.device).expand(g, n)
    rank = torch.empty_like(source).scatter_(1, most.argsort(dim=1, descending=True, stable=True), place)
    best = torch.full((g, k), n, device=source.device)  # rank of the cell that a token keeps whatever happens
    best = best.scatter_reduce(1, source, rank.masked_fill(~open_, n), "amin")
    spare = open_ & (rank != best.gather(1, source))
    least = torch.where(spare, -rank, 1).argsort(dim=1, stable=True)  # spare cells, the least attended to first
    lacking = best == n
    turn = lacking.cumsum(1) - 1
    group, token = (lacking & (turn < spare.sum(1, keepdim=True))).nonzero(as_tuple=True)
    source[group, least[group, turn[group, token]]] = token
    return source.masked_fill(~open_, -1)
