"""Blocks that read the recent past alone, and a memory in two levels of detail, chosen by the question."""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape
from vxl_lightning.caches.forward import turned, watched
from vxl_lightning.caches.further import forward_further
from vxl_lightning.caches.memory import Memory, Passage, ends
from vxl_lightning.caches.relevance import group_scores, mean_keys


@dataclass(frozen=True, eq=False)
class Block:
    """What is known of a block besides its keys and values.

    Attributes:
        visual: ``[n]`` bool, as in `Passage`.
        stretch: ``[n]``, as in `Passage`.
        means: ``[layers, stretches, kv_heads * head_dim]`` mean key, before rotation, of the visual tokens of every
            stretch that has any.
    """

    visual: Tensor
    stretch: Tensor
    means: Tensor


@dataclass(frozen=True, eq=False)
class ChunkedState(CacheState):
    """Attribute blocks: what was read."""

    blocks: tuple[Block, ...] = ()

    @property
    def visual(self) -> Tensor:
        return torch.cat([b.visual for b in self.blocks])

    @property
    def stretch(self) -> Tensor:
        return torch.cat([b.stretch for b in self.blocks])


class ChunkedPrefill(CacheCompressor):
    """Video-XL-2's chunk-based prefill and bi-level decoding.

    *Prefill.* The video is read in blocks of ``block`` stretches. A visual token attends to its own block
    (causally), to the ``previous`` blocks before it, to all text so far (the chat's head, time text) and to nothing
    else: what it does not see is not computed. Time text attends to everything before it, and so carries what was seen
    from block to block. Between visual tokens, time and memory of the attention so grow linearly with the video; what
    time text reads, and what reads it, is a small part that grows with the square. All keys and values are held until a
    question chooses, and every block appends its own to them in a copy.

    *Decoding.* Of every ``chunk`` stretches either all keys and values of the visual tokens are recalled, or those
    averaged over ``pool`` neighbouring tokens, keys as they are before rotation; text always. What is recalled takes
    consecutive positions, keys turned to them, and the question is read right behind it. As many chunks are recalled in
    full as ``retention`` allows: the first and the last before any other, then the most relevant to the question.
    Relevance is the question's mean query times the chunk's mean key, over all heads and layers (`relevance`).

    Follows Qin et al., "Video-XL-2" (arXiv 2506.19225) and its release (Apache-2.0, read, not copied). The release
    builds the blocks' attention as one dense mask, which saves nothing, and loads relevance from files that another
    model (LanguageBind) made, with another number of chunks for every kind of question; here the work is skipped,
    relevance comes from the run, and the budget decides how many chunks are full. Neighbours are averaged within a
    chunk, also where time text stands between them, and what is left at its end as well; the release averages within a
    stretch and drops what is left there, which is nothing with its own sizes. The last chunk in full is one of
    ``chunk`` stretches only where the video has that many left. Where chunks differ in their number of tokens,
    ``kv_length`` is the most that a choice can come to. With every block visible (``previous=-1``) and ``retention=1``
    it is plain causal attention.
    """

    needs_query = True
    budget = "bound"
    exact_at_one = False
    origin = "Video-XL-2 (arXiv 2506.19225; VectorSpaceLab/Video-XL, Apache-2.0); written from the paper"

    @dataclass(frozen=True, kw_only=True)
    class Config(CacheCompressor.Config):
        retention: float = 1 / 2
        """Fraction of the visual tokens' keys and values that the question attends to, in (0, 1]."""
        block: int = 4
        """Stretches of a block."""
        previous: int = 3
        """Blocks before its own that a visual token attends to; -1 is all."""
        chunk: int = 4
        """Stretches that are recalled at one level of detail."""
        pool: int = 4
        """Neighbouring tokens whose keys and values are averaged where a chunk is not recalled in full."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, least in (("block", 1), ("previous", -1), ("chunk", 1), ("pool", 1)):
                if getattr(self, name) < least:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
            if self.retention * self.pool < 1:
                raise ValueError(
                    f"retention={self.retention}: with pool={self.pool} no less than {1 / self.pool:.6g} is recalled; "
                    f"raise retention, or set pool={-(-1 // self.retention):g}"
                )

    config: Config

    def __init__(self, config: Config, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.stretches_per_group = config.chunk
        self.exact_at_one = config.previous < 0  # type: ignore[misc]

    def kv_length(self, passage: Passage) -> int:
        return int((~passage.visual).sum()) + self._detailed(self._sizes(passage.visual, passage.stretch))[1]

    def start(self) -> ChunkedState:
        return ChunkedState()

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        return ends(waiting.starts(self.config.block), len(waiting), last)

    def read_window(self, model: Any, window: Passage, state: ChunkedState) -> ChunkedState:
        at = 0 if state.memory is None else state.memory.position
        position = torch.arange(at, at + len(window), device=window.embeds.device)
        seen, text = self._seen(state, int(window.stretch[0])), (~window.visual).nonzero()[:, 0]
        with watched(model, "k_proj") as keys:
            _, new = forward_further(model, window.embeds, seen, position, text, state.memory)
        number = torch.full_like(window.stretch, -1)
        found, number[window.visual] = torch.unique(window.stretch[window.visual], return_inverse=True)
        block = Block(window.visual, window.stretch, mean_keys(keys, number, len(found)))
        memory = new if state.memory is None else Memory.joined([state.memory, new], new.position)
        return replace(state, memory=memory, blocks=(*state.blocks, block))

    def _seen(self, state: ChunkedState, stretch: int) -> Memory | None:
        """What visual tokens of the block that begins with ``stretch`` attend to besides it."""
        if state.memory is None or self.config.previous < 0:
            return state.memory
        recent = state.stretch // self.config.block >= stretch // self.config.block - self.config.previous
        return state.memory.take((~state.visual | recent).nonzero()[:, 0])

    def attended(self, model: Any, state: ChunkedState, query: Tensor | None) -> Memory:
        memory, visual, stretch = state.memory, state.visual, state.stretch
        assert query is not None and memory is not None  # recall has asked for both
        sizes = self._sizes(visual, stretch)
        count = self._detailed(sizes)[0]
        if count == len(sizes):
            return memory
        means = torch.cat([b.means for b in state.blocks], 1)
        numbers, tokens = torch.unique(stretch[visual], return_counts=True)
        chunk = torch.unique(numbers // self.config.chunk, return_inverse=True)[1]
        total = means.new_zeros(len(means), len(sizes), means.shape[2]).index_add(1, chunk, means * tokens[:, None])
        keys = total / torch.tensor(sizes, device=means.device)[:, None]
        # Text is what the question reads before it is decided what else it reads.
        text = memory.take((~visual).nonzero()[:, 0])
        scores = group_scores(model, self.shape, text, query, keys).mean(0)
        scores[_always(len(sizes))] = float("inf")
        full = torch.zeros_like(scores, dtype=torch.bool)
        full[scores.argsort(descending=True, stable=True)[:count]] = True
        place = _two_levels(visual, chunk.repeat_interleave(tokens), full, self.config.pool)
        return _gathered(model, memory, place)

    def nbytes(self, state: ChunkedState) -> int:
        return super().nbytes(state) + sum(int(b.means.nbytes) for b in state.blocks)

    def _sizes(self, visual: Tensor, stretch: Tensor) -> list[int]:
        """Visual tokens of every chunk."""
        return torch.unique(stretch[visual] // self.config.chunk, return_counts=True)[1].tolist()  # type: ignore[no-any-return]

    def _detailed(self, sizes: list[int]) -> tuple[int, int]:
        """How many chunks the budget recalls in full, and the most visual tokens that all then come to."""
        pooled = [-(-n // self.config.pool) for n in sizes]
        gains = [n - p for n, p in zip(sizes, pooled, strict=True)]
        first = _always(len(sizes))
        others = sorted((gain for i, gain in enumerate(gains) if i not in first), reverse=True)
        totals = list(accumulate([gains[i] for i in first] + others, initial=sum(pooled)))
        budget = max(int(self.config.retention * sum(sizes) + 0.5), totals[0])
        count = max(i for i, total in enumerate(totals) if total <= budget)
        return count, totals[count]

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 2, "block": 2, "previous": 1, "chunk": 1},
            {"retention": 0.7, "block": 3, "previous": -1, "chunk": 2, "pool": 2},
        ]


def _always(chunks: int) -> list[int]:
    """Chunks that come before any other: the first and the last."""
    return sorted({0, chunks - 1} & set(range(chunks)))


def _two_levels(visual: Tensor, chunk: Tensor, full: Tensor, pool: int) -> Tensor:
    """``[n]`` where each place goes: text and full chunks to places of their own, of others ``pool`` neighbours to one.

    Args:
        visual: ``[n]`` bool.
        chunk: of every visual token, in order.
        full: ``[chunks]`` bool.
        pool: neighbours that go to one place; text may stand between them.
    """
    tokens = torch.bincount(chunk, minlength=len(full))
    rank = torch.arange(len(chunk), device=chunk.device) - (tokens.cumsum(0) - tokens)[chunk]
    pooled, joins = torch.zeros_like(visual), torch.zeros_like(visual)
    pooled[visual] = ~full[chunk]
    joins[visual] = ~full[chunk] & (rank % pool != 0)
    # A place that joins goes where the last run of pooled tokens began; every other one is a place of its own.
    place = (~joins).long().cumsum(0) - 1
    begun = torch.where(pooled & ~joins, place, -1).cummax(0).values
    return torch.where(joins, begun, place)


def _gathered(model: Any, memory: Memory, place: Tensor) -> Memory:
    """The mean of what goes to each place, keys turned to where that place is: turned alike, they are averaged as they
    were before rotation."""
    size = torch.bincount(place)[None, None, :, None]

    def mean(x: Tensor) -> Tensor:
        total = torch.zeros(*x.shape[:2], size.shape[2], x.shape[3], device=x.device)
        return (total.index_add(2, place, x.float()) / size).to(x.dtype)

    by = place - torch.arange(len(place), device=place.device)
    keys = [mean(turned(model, [k], by)[0]) for k in memory.keys]  # one layer's copy at a time
    return Memory(keys, [mean(v) for v in memory.values], size.shape[2])
