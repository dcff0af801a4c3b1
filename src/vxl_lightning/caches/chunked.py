"""Blocks that read the recent past alone, and a memory in two levels of detail, chosen by the question."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, Memory, Passage, finished
from vxl_lightning.caches.forward import forward, watched
from vxl_lightning.caches.relevance import group_scores, mean_keys


class ChunkedPrefill(CacheCompressor):
    """Video-XL-2's chunk-based prefill and bi-level decoding.

    *Prefill.* The video is read in blocks of ``block`` stretches. A block attends to itself (causally), to the
    ``previous`` blocks before it, to all text so far (the chat's head, time text) and to nothing else: what it does not
    see is not computed, so time and memory of the attention grow linearly with the video.

    *Decoding.* Of every ``chunk`` stretches either all keys and values of the visual tokens are recalled, or those
    averaged over ``pool`` neighbouring tokens; text always. The first, the second and the last chunk are recalled in
    full, then the most relevant to the question, as many as ``retention`` allows. Relevance is the question's mean
    query times the chunk's mean key, over all heads and layers (`relevance`).

    Follows Qin et al., "Video-XL-2" (arXiv 2506.19225) and its release (Apache-2.0, read, not copied). The release
    builds the blocks' attention as one dense mask, which saves nothing, and loads relevance from files that another
    model (LanguageBind) made, with another number of chunks for every kind of question; here the work is skipped,
    relevance comes from the run, and the budget decides how many chunks are full. The last chunk in full is one of
    ``chunk`` stretches only where the video has that many left. Where chunks differ in their number of tokens,
    ``kv_length`` is the most that a choice can come to. With every block visible (``previous=-1``) and ``retention=1``
    it is plain causal attention.
    """

    needs_query = True
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

    config: Config

    def kv_length(self, passage: Passage) -> int:
        sizes = self._sizes(passage.visual, passage.stretch)
        full = self._full_count(sizes)
        short = [-(-n // self.config.pool) for n in sizes]
        return int((~passage.visual).sum()) + self._total(sizes, short, full)

    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        self.check(passage)
        state = state or CacheState(extra={"visual": [], "stretch": [], "keys": []})
        waiting = passage if state.pending is None else Passage.joined([state.pending, passage])
        block = waiting.stretch.clamp(min=0) // self.config.block
        change = (block[1:] != block[:-1]).nonzero()[:, 0] + 1
        ends = [*change.tolist(), len(waiting)] if last and len(waiting) else change.tolist()
        memory, begin = state.memory, 0
        extra = {name: list(parts) for name, parts in state.extra.items()}
        for end in ends:
            part = waiting.part(begin, end)
            seen = self._seen(memory, extra, int(block[begin]))
            at = 0 if memory is None else memory.position
            with watched(model, "k_proj") as keys:
                _, new = forward(model, part.embeds, seen, torch.arange(at, at + len(part), device=block.device))
            memory = new if memory is None else Memory.joined([memory, new], new.position)
            extra["visual"].append(part.visual)
            extra["stretch"].append(part.stretch)
            extra["keys"].append(torch.stack([k[0].detach() for k in keys]))
            begin = end
        rest = waiting.part(begin, len(waiting))
        return CacheState(memory, rest, state.visual + int(passage.visual.sum()), extra)

    def _seen(self, memory: Memory | None, extra: dict[str, Any], block: int) -> Memory | None:
        """What a block attends to besides itself."""
        if memory is None or self.config.previous < 0:
            return memory
        visual, stretch = torch.cat(extra["visual"]), torch.cat(extra["stretch"])
        recent = stretch.clamp(min=0) // self.config.block >= block - self.config.previous
        return memory.take((~visual | recent).nonzero()[:, 0])

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        memory = finished(state, "chunked")
        visual, stretch = torch.cat(state.extra["visual"]), torch.cat(state.extra["stretch"])
        query = self.asked(query)
        sizes = self._sizes(visual, stretch)
        if self._full_count(sizes) >= len(sizes):
            return memory
        chunk = torch.where(visual, stretch // self.config.chunk, -1)
        number = torch.unique(chunk[visual], return_inverse=True)[1]
        chunk[visual] = number
        keys = mean_keys([k[None] for k in torch.cat(state.extra["keys"], 1)], chunk, len(sizes))
        # Text is what the question reads before it is decided what else it reads.
        text = memory.take((~visual).nonzero()[:, 0])
        scores = group_scores(model, self.shape, text, query, keys).mean(0)
        return _two_levels(memory, visual, chunk, self._level(scores, sizes), self.config.pool)

    def _sizes(self, visual: Tensor, stretch: Tensor) -> list[int]:
        """Visual tokens of every chunk."""
        return torch.unique(stretch[visual] // self.config.chunk, return_counts=True)[1].tolist()  # type: ignore[no-any-return]

    def _full_count(self, sizes: list[int]) -> int:
        """Chunks in full that the budget allows, those that always are included.

        Raises:
            ValueError: it does not allow them; the least retention that does is named.
        """
        if not sizes:
            return 0
        short = [-(-n // self.config.pool) for n in sizes]
        budget = int(self.config.retention * sum(sizes) + 0.5)
        forced = min(3, len(sizes))
        if self._total(sizes, short, forced) > budget:
            least = self._total(sizes, short, forced) / sum(sizes)
            raise ValueError(
                f"retention={self.config.retention:.6g} does not hold the first two and the last of {len(sizes)} chunks"
                f" in full, the others pooled by {self.config.pool}; the least that does is {least:.6g}; or set pool "
                "higher or chunk lower"
            )
        counts = range(forced, len(sizes) + 1)
        return max(n for n in counts if self._total(sizes, short, n) <= budget)

    def _total(self, sizes: list[int], short: list[int], full: int) -> int:
        """Visual tokens recalled with ``full`` chunks in full: the always full ones and the largest others."""
        forced = {0, 1, len(sizes) - 1} & set(range(len(sizes)))
        gains = sorted((sizes[i] - short[i] for i in range(len(sizes)) if i not in forced), reverse=True)
        always = sum(sizes[i] if i in forced else short[i] for i in range(len(sizes)))
        return always + sum(gains[: max(full - len(forced), 0)])

    def _level(self, scores: Tensor, sizes: list[int]) -> Tensor:
        """``[chunks]`` bool, which are recalled in full."""
        count = self._full_count(sizes)
        wanted = scores.clone()
        wanted[torch.tensor(sorted({0, min(1, len(sizes) - 1), len(sizes) - 1}))] = float("inf")
        full = torch.zeros(len(sizes), dtype=torch.bool)
        full[wanted.cpu().argsort(descending=True, stable=True)[:count]] = True
        return full

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 2, "block": 2, "previous": 1, "chunk": 1}, {"retention": 0.7, "chunk": 2, "pool": 2}]


def _two_levels(memory: Memory, visual: Tensor, chunk: Tensor, full: Tensor, pool: int) -> Memory:
    """All text, full chunks as they are, and of the others the means of ``pool`` neighbouring tokens."""
    n = len(visual)
    detailed = ~visual | full.to(chunk.device)[chunk.clamp(min=0)]
    # Every place that stays or begins a pooled run is a new place; the others join the run before them.
    same = torch.zeros(n, dtype=torch.bool, device=visual.device)
    within = torch.zeros(n, dtype=torch.long, device=visual.device)
    for c in torch.unique(chunk[~detailed]).tolist():
        places = ((chunk == c) & ~detailed).nonzero()[:, 0]
        within[places] = torch.arange(len(places), device=places.device)
        same[places] = within[places] % pool != 0
    owner = _owners(same, detailed)
    count = int(owner.max()) + 1
    size = torch.bincount(owner, minlength=count).to(memory.keys[0].dtype)[None, None, :, None]

    def mean(x: Tensor) -> Tensor:
        shape = (*x.shape[:2], count, x.shape[3])
        return x.new_zeros(shape).index_add(2, owner, x) / size

    return Memory([mean(k) for k in memory.keys], [mean(v) for v in memory.values], memory.position)


def _owners(joins: Tensor, detailed: Tensor) -> Tensor:
    """``[n]`` the new place of every old one; one that joins goes where the last pooled run began.

    Text may stand between two tokens of a run: time text is inside a chunk.
    """
    new = (~joins).long().cumsum(0) - 1
    starts = torch.where(~joins & ~detailed, new, torch.full_like(new, -1))
    return torch.where(joins, starts.cummax(0).values, new)
