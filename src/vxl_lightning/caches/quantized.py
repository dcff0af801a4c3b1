"""Groups of keys and values in a few bits each, recalled by the question under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState
from vxl_lightning.caches.forward import extended, forward, turned, watched
from vxl_lightning.caches.memory import Memory, Passage, ends, sizes
from vxl_lightning.caches.packed import Packed
from vxl_lightning.caches.relevance import group_scores, mean_keys


@dataclass(frozen=True, eq=False)
class Group:
    """One stretch of the video: its keys and values of all layers, raw or packed.

    Attributes:
        keys: ``[layers, kv_heads, m, head_dim]``, rotated as from position ``at`` on.
        values: likewise.
        mean: ``[layers, kv_heads * head_dim]`` mean key before rotation.
        at: position of its first place when it was read.
        size: m.
        alike: of a packed group where there is a ``store``, how like its mean is to that of the one before it; 0 of the
            first.
    """

    keys: Tensor | Packed
    values: Tensor | Packed
    mean: Tensor
    at: int
    size: int
    alike: float = 0.0

    def packed(self, bits: int) -> "Group":
        assert isinstance(self.keys, Tensor) and isinstance(self.values, Tensor)
        return replace(self, keys=Packed.of(self.keys, bits), values=Packed.of(self.values, bits))

    def after(self, other: "Group") -> "Group":
        """Behind ``other``, in a store."""
        alike = F.cosine_similarity(self.mean.flatten(), other.mean.flatten(), dim=0).round(decimals=5)
        return replace(self, alike=float(alike))

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes + self.mean.nbytes)


@dataclass(frozen=True, eq=False)
class QuantizedState(CacheState):
    """What is left of a stream: its ``memory`` is the chat's head alone.

    Attributes:
        groups: stretches that are remembered, packed ones first.
        seen: stretches there were.
        largest: places of the largest of them.
    """

    groups: tuple[Group, ...] = ()
    seen: int = 0
    largest: int = 0


class QuantizedMemory(CacheCompressor):
    """StreamingTOM's online quantised memory: read in a sliding window, remembered in a few bits, recalled by need.

    A stretch of the video (its tokens and its time text) is a group. New groups attend to the chat's head and to the
    last ``window`` tokens; a group that leaves the window is quantised to ``bits`` bits, asymmetrically, with a grid of
    its own for every layer, head and channel, and keeps its mean key. A question recalls the groups whose mean keys
    answer its mean query best, as many as ``retention`` of the visual tokens and ``most`` allow, restored and in the
    order of time; head and recall stand at consecutive positions, keys turned to them. So the length of a stream does
    not matter to the positions, as long as two sums lie within those that the language model was trained on: head,
    window and one block (``block`` stretches, however large), and head, ``most`` (or one group, where that is larger),
    question and answer. ``store`` bounds the memory of a stream without end: beyond it the group most like the one
    before it is forgotten; without it, memory grows with the stream, a few bits a number.

    Follows Chen et al., "StreamingTOM" (CVPR 2026, arXiv 2510.18269): 4 bits, recall under 12,544 tokens, a window of
    4,800. Written from the published definition; the code has no licence and was not read. There a group is the 50
    tokens of a frame and lies in 4 bits at once; here groups in the window stay as they are, since they are needed
    raw anyway. One choice of groups serves all layers (scores averaged over them). In training, rounding passes
    gradients on as they are. ``store`` is this project's own.
    """

    needs_query = True
    budget = "bound"
    exact_at_one = False
    origin = "StreamingTOM (arXiv 2510.18269; no licence); clean-room from the published definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(CacheCompressor.Config):
        bits: int = 4
        """Bits of a remembered number: 4 or 2."""
        window: int = 4800
        """Tokens before its own block that a block attends to."""
        block: int = 4
        """Stretches that are read in one forward pass."""
        most: int = 12544
        """Tokens that are recalled at most, however long the video is."""
        store: int = 0
        """Groups that are remembered outside the window; 0 is all."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.bits not in (2, 4):
                raise ValueError(f"bits={self.bits} is not 2 or 4")
            for name, least in (("window", 0), ("block", 1), ("most", 1), ("store", 0)):
                if getattr(self, name) < least:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")

    config: Config

    def kv_length(self, passage: Passage) -> int:
        """The most that a choice of groups can come to; exact where all have the same size."""
        return self._most(passage, torch.ones_like(passage.visual))

    def visual_length(self, passage: Passage) -> int:
        """The most that a choice of groups can come to: a group that is not recalled takes its time text with it."""
        return self._most(passage, passage.visual)

    def _most(self, passage: Passage, counts: Tensor) -> int:
        """The most places of those that count, ``[n]`` bool, in the head and any groups that can be recalled."""
        grouped = passage.stretch >= 0
        number, size = passage.stretch[grouped].unique(return_inverse=True, return_counts=True)[1:]
        here = int(counts[~grouped].sum())
        if not len(size):
            return here
        raw = int((size.flip(0).cumsum(0) <= self.config.window).sum())
        count = self._count(len(size), int(size.max()), min(len(size), raw + (self.config.store or len(size))))
        each = torch.zeros_like(size).index_add(0, number, counts[grouped].long())
        return here + int(each.sort(descending=True).values[:count].sum())

    def start(self) -> QuantizedState:
        return QuantizedState()

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        return ends(waiting.starts(self.config.block), len(waiting), last)

    def read_window(self, model: Any, window: Passage, state: QuantizedState) -> QuantizedState:
        if int(window.stretch[0]) < 0:
            return replace(state, memory=extended(model, window.embeds, state.memory))
        head = _nothing(self, window) if state.memory is None else state.memory
        found = self._read_block(model, window, head, state.groups)
        return replace(
            state,
            memory=head,
            groups=self._remember([*state.groups, *found]),
            seen=state.seen + len(found),
            largest=max(state.largest, *(g.size for g in found)),
        )

    def attended(self, model: Any, state: QuantizedState, query: Tensor | None) -> Memory:
        assert query is not None and state.memory is not None  # recall has asked for both
        groups = state.groups
        count = self._count(state.seen, state.largest, len(groups))
        if count < len(groups):
            keys = torch.stack([g.mean for g in groups], 1)
            scores = group_scores(model, self.shape, state.memory, query, keys).mean(0)
            chosen = scores.argsort(descending=True, stable=True)[:count].sort().values.tolist()
            groups = tuple(groups[i] for i in chosen)
        return _laid_out(model, state.memory, groups)

    def nbytes(self, state: QuantizedState) -> int:
        return super().nbytes(state) + sum(g.nbytes for g in state.groups)

    def _read_block(self, model: Any, block: Passage, head: Memory, groups: Sequence[Group]) -> list[Group]:
        """The groups of one block, read after the head and the window."""
        before = _laid_out(model, head, groups[_packed(groups) :])
        at = before.position
        with watched(model, "k_proj") as seen:
            _, new = forward(model, block.embeds, before, torch.arange(at, at + len(block), device=block.embeds.device))
        starts = block.starts(1)
        lengths = sizes(starts, len(block))
        number = torch.unique_consecutive(block.stretch, return_inverse=True)[1]
        means = mean_keys(seen, number, len(lengths))
        # Copies, or every group would hold on to its whole block.
        keys = [k.clone() for k in torch.cat(new.keys).split(lengths, 2)]
        values = [v.clone() for v in torch.cat(new.values).split(lengths, 2)]
        return [Group(keys[i], values[i], means[:, i].clone(), at + starts[i], size) for i, size in enumerate(lengths)]

    def _remember(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Pack what has left the window, and forget what the store has no place for."""
        kept, before, total = list(groups), _packed(groups), 0
        for i in reversed(range(before, len(kept))):
            total += kept[i].size
            if total > self.config.window:
                kept[i] = kept[i].packed(self.config.bits)
        if not self.config.store:
            return tuple(kept)
        outside = _packed(kept)
        for i in range(max(before, 1), outside):
            kept[i] = kept[i].after(kept[i - 1])
        while outside > self.config.store:
            forgotten = max(range(1, outside), key=lambda i: kept[i].alike)  # the earliest of equals
            del kept[forgotten]
            outside -= 1
            if forgotten < outside:  # its neighbour alone stands behind another one now
                kept[forgotten] = kept[forgotten].after(kept[forgotten - 1])
        return tuple(kept)

    def _count(self, seen: int, largest: int, held: int) -> int:
        """Groups that are recalled: as many as the budgets hold where all are as large as the largest."""
        if not held:
            return 0
        wanted = int(self.config.retention * seen + 0.5)
        most: int = self.config.most // largest
        return max(1, min(wanted, most, held))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 2, "window": 12, "block": 2},
            {"retention": 1 / 4, "bits": 2, "window": 0, "block": 1},
            {"retention": 1 / 4, "window": 12, "block": 3, "store": 10},
        ]


def _packed(groups: Sequence[Group]) -> int:
    """How many groups are packed: all before the first that is not. Counted from the end, where those few are."""
    count = len(groups)
    while count and isinstance(groups[count - 1].keys, Tensor):
        count -= 1
    return count


def _laid_out(model: Any, head: Memory, groups: Sequence[Group]) -> Memory:
    """Head and groups at consecutive positions."""
    if not groups:
        return head
    at, moves, keys, values = head.position, [], [], []
    for g in groups:
        moves.append(torch.full((g.size,), at - g.at))
        keys.append(g.keys.restored() if isinstance(g.keys, Packed) else g.keys)
        values.append(g.values.restored() if isinstance(g.values, Packed) else g.values)
        at += g.size
    joined, told = torch.cat(keys, 2), torch.cat(values, 2)
    by = torch.cat(moves).to(joined.device)
    layers = [joined[i : i + 1] for i in range(len(joined))]
    recalled = Memory(turned(model, layers, by), [told[i : i + 1] for i in range(len(told))], at)
    return Memory.joined([head, recalled], at)


def _nothing(cache: CacheCompressor, passage: Passage) -> Memory:
    """A prompt without a head."""
    s = cache.shape
    empty = passage.embeds.new_zeros(1, s.kv_heads, 0, s.head_dim)
    return Memory([empty] * s.layers, [empty] * s.layers, 0)
