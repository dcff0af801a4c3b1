"""Blocks that read the recent past alone, and a memory in two levels of detail, chosen by the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape
from vxl_lightning.caches.forward import forward, watched
from vxl_lightning.caches.memory import Memory, Passage, ends
from vxl_lightning.caches.relevance import group_scores, mean_keys


@dataclass(frozen=True, eq=False)
class Block:
    """What was read at once, and stays as it is.

    Attributes:
        memory: keys and values of its n places.
        visual: ``[n]`` bool, as in `Passage`.
        stretch: ``[n]``, as in `Passage`.
        means: ``[layers, stretches, kv_heads * head_dim]`` mean key, before rotation, of the visual tokens of every
            stretch that has any.
    """

    memory: Memory
    visual: Tensor
    stretch: Tensor
    means: Tensor


@dataclass(frozen=True, eq=False)
class ChunkedState(CacheState):
    """Its ``memory`` is the text so far, which every block attends to.

    Attributes:
        blocks: all that was read, text included.
    """

    blocks: tuple[Block, ...] = ()

    @property
    def visual(self) -> Tensor:
        return torch.cat([b.visual for b in self.blocks])

    @property
    def stretch(self) -> Tensor:
        return torch.cat([b.stretch for b in self.blocks])


class ChunkedPrefill(CacheCompressor):
    """Video-XL-2's chunk-based prefill and bi-level decoding.

    *Prefill.* The video is read in blocks of ``block`` stretches. A block attends to itself (causally), to the
    ``previous`` blocks before it, to all text so far (the chat's head, time text) and to nothing else: what it does not
    see is not computed. Between visual tokens, time and memory of the attention so grow linearly with the video; time
    text alone is seen by all that follows, a small part that grows with the square. All keys and values are held until
    a question chooses; a block's stay where they were put, and are joined to the others' when they are recalled.

    *Decoding.* Of every ``chunk`` stretches either all keys and values of the visual tokens are recalled, or those
    averaged over ``pool`` neighbouring tokens; text always. As many chunks are recalled in full as ``retention``
    allows: the first, the second and the last before any other, then the most relevant to the question. Relevance is
    the question's mean query times the chunk's mean key, over all heads and layers (`relevance`).

    Follows Qin et al., "Video-XL-2" (arXiv 2506.19225) and its release (Apache-2.0, read, not copied). The release
    builds the blocks' attention as one dense mask, which saves nothing, and loads relevance from files that another
    model (LanguageBind) made, with another number of chunks for every kind of question; here the work is skipped,
    relevance comes from the run, and the budget decides how many chunks are full. The last chunk in full is one of
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
        """Blocks before its own that a block attends to; -1 is all."""
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
        text = state.memory
        at = 0 if text is None else text.position
        position = torch.arange(at, at + len(window), device=window.embeds.device)
        with watched(model, "k_proj") as keys:
            _, new = forward(model, window.embeds, self._seen(state, int(window.stretch[0])), position)
        number = torch.full_like(window.stretch, -1)
        found, number[window.visual] = torch.unique(window.stretch[window.visual], return_inverse=True)
        memory = Memory.joined([new], new.position)  # a copy, or the block would hold on to what it attended to
        block = Block(memory, window.visual, window.stretch, mean_keys(keys, number, len(found)))
        told = memory.take((~window.visual).nonzero()[:, 0])
        text = told if text is None else Memory.joined([text, told], memory.position)
        return replace(state, memory=text, blocks=(*state.blocks, block))

    def _seen(self, state: ChunkedState, stretch: int) -> Memory | None:
        """What the block that begins with ``stretch`` attends to besides itself."""
        text, blocks = state.memory, state.blocks
        if text is None:
            return None
        if self.config.previous >= 0:
            first = (stretch // self.config.block - self.config.previous) * self.config.block
            recent = blocks[max(0, len(blocks) - self.config.previous) :]
            blocks = tuple(b for b in recent if int(b.stretch[0]) >= first)
        before = len(text) - sum(int((~b.visual).sum()) for b in blocks)
        return Memory.joined([text.cut(0, before), *(b.memory for b in blocks)], text.position)

    def attended(self, model: Any, state: ChunkedState, query: Tensor | None) -> Memory:
        text, visual, stretch = state.memory, state.visual, state.stretch
        assert query is not None and text is not None  # recall has asked for both
        parts = [b.memory for b in state.blocks]
        sizes = self._sizes(visual, stretch)
        count = self._detailed(sizes)[0]
        if count == len(sizes):
            return Memory.joined(parts, text.position)
        means = torch.cat([b.means for b in state.blocks], 1)
        numbers, tokens = torch.unique(stretch[visual], return_counts=True)
        chunk = torch.unique(numbers // self.config.chunk, return_inverse=True)[1]
        total = means.new_zeros(len(means), len(sizes), means.shape[2]).index_add(1, chunk, means * tokens[:, None])
        keys = total / torch.tensor(sizes, device=means.device)[:, None]
        # Text is what the question reads before it is decided what else it reads.
        scores = group_scores(model, self.shape, text, query, keys).mean(0)
        scores[_always(len(sizes))] = float("inf")
        full = torch.zeros_like(scores, dtype=torch.bool)
        full[scores.argsort(descending=True, stable=True)[:count]] = True
        return _two_levels(parts, visual, chunk.repeat_interleave(tokens), full, self.config.pool)

    def nbytes(self, state: ChunkedState) -> int:
        return super().nbytes(state) + sum(int(b.memory.nbytes + b.means.nbytes) for b in state.blocks)

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
    """Chunks that come before any other: the first, the second and the last."""
    return sorted({0, 1, chunks - 1} & set(range(chunks)))


def _two_levels(parts: Sequence[Memory], visual: Tensor, chunk: Tensor, full: Tensor, pool: int) -> Memory:
    """All text, full chunks as they are, and of the others the means of ``pool`` neighbouring tokens.

    Args:
        parts: one after another, of n places together.
        visual: ``[n]`` bool.
        chunk: of every visual token, in order.
        full: ``[chunks]`` bool.
        pool: neighbours that are averaged; text may stand between them.
    """
    tokens = torch.bincount(chunk, minlength=len(full))
    rank = torch.arange(len(chunk), device=chunk.device) - (tokens.cumsum(0) - tokens)[chunk]
    pooled, joins = torch.zeros_like(visual), torch.zeros_like(visual)
    pooled[visual] = ~full[chunk]
    joins[visual] = ~full[chunk] & (rank % pool != 0)
    # A place that joins goes where the last run of pooled tokens began; every other one is a place of its own.
    place = (~joins).long().cumsum(0) - 1
    begun = torch.where(pooled & ~joins, place, -1).cummax(0).values
    place = torch.where(joins, begun, place)
    size = torch.bincount(place)[None, None, :, None]

    def mean(joined: Sequence[Tensor]) -> Tensor:
        x = torch.cat([*joined], 2)  # of one layer at a time
        total = torch.zeros(*x.shape[:2], size.shape[2], x.shape[3], device=x.device)
        return (total.index_add(2, place, x.float()) / size).to(x.dtype)

    keys, values = zip(*(p.keys for p in parts), strict=True), zip(*(p.values for p in parts), strict=True)
    return Memory([mean(k) for k in keys], [mean(v) for v in values], parts[-1].position)
