"""Groups of keys and values in a few bits each, recalled by the question under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, Memory, Passage, finished
from vxl_lightning.caches.forward import forward, turned, watched
from vxl_lightning.caches.relevance import group_scores, mean_keys


@dataclass(frozen=True, eq=False)
class Packed:
    """A tensor ``[..., m, d]`` in 4 or 2 bits: an asymmetric grid of its own for every channel over the m places.

    Attributes:
        codes: uint8, several codes a byte along m.
        low: ``[..., 1, d]``, the value of code 0.
        step: ``[..., 1, d]``, what one code more adds; a value is off by half of it at most.
        bits: of a code.
        length: m.
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    bits: int
    length: int

    @classmethod
    def of(cls, x: Tensor, bits: int) -> "Packed":
        low, high = x.float().amin(-2, keepdim=True), x.float().amax(-2, keepdim=True)
        # The grid is what its stored end and step say, so that rounding them does not add to the error.
        low = low.to(x.dtype)
        step = ((high - low.float()) / (2**bits - 1)).to(x.dtype)
        level = ((x.float() - low.float()) / step.float().clamp(min=1e-12)).round().clamp(0, 2**bits - 1)
        each = 8 // bits
        level = F.pad(level.to(torch.uint8), (0, 0, 0, -x.shape[-2] % each))
        parts = level.unflatten(-2, (-1, each))
        shift = bits * torch.arange(each, device=x.device, dtype=torch.uint8)[:, None]
        codes = (parts << shift).sum(-2, dtype=torch.uint8)
        return cls(codes, low, step, bits, int(x.shape[-2]))

    def restored(self) -> Tensor:
        each = 8 // self.bits
        shift = self.bits * torch.arange(each, device=self.codes.device, dtype=torch.uint8)[:, None]
        level: Tensor = (self.codes.unsqueeze(-2) >> shift) & (2**self.bits - 1)
        x: Tensor = level.flatten(-3, -2)[..., : self.length, :].to(self.step.dtype)
        return x * self.step + self.low

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.codes, self.low, self.step))


@dataclass(frozen=True, eq=False)
class Group:
    """One stretch of the video: its keys and values of all layers, raw or packed.

    Attributes:
        keys: ``[layers, kv_heads, m, head_dim]``, rotated as from position ``at`` on.
        values: likewise.
        mean: ``[layers, kv_heads * head_dim]`` mean key before rotation.
        at: position of its first place when it was read.
        size: m.
        visual: visual tokens among them.
    """

    keys: Tensor | Packed
    values: Tensor | Packed
    mean: Tensor
    at: int
    size: int
    visual: int

    def packed(self, bits: int) -> "Group":
        assert isinstance(self.keys, Tensor) and isinstance(self.values, Tensor)
        return replace(self, keys=Packed.of(self.keys, bits), values=Packed.of(self.values, bits))

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes + self.mean.nbytes)


class QuantizedMemory(CacheCompressor):
    """StreamingTOM's online quantised memory: read in a sliding window, remembered in a few bits, recalled by need.

    A stretch of the video (its tokens and its time text) is a group. New groups attend to the chat's head and to the
    last ``window`` tokens; a group that leaves the window is quantised to ``bits`` bits, asymmetrically, with a grid of
    its own for every layer, head and channel, and keeps its mean key. A question recalls the groups whose mean keys
    answer its mean query best, as many as ``retention`` of the visual tokens and ``most`` allow, restored and in the
    order of time; head and recall stand at consecutive positions, keys turned to them, so that a stream of any length
    is read and answered within the positions that the language model was trained on. ``store`` bounds the memory of a
    stream without end: beyond it the group most like the one before it is forgotten.

    Follows Chen et al., "StreamingTOM" (CVPR 2026, arXiv 2510.18269): 4 bits, recall under 12,544 tokens, a window of
    4,800. Written from the published definition; the code has no licence and was not read. There a group is the 50
    tokens of a frame and lies in 4 bits at once; here groups in the window stay as they are, since they are needed
    raw anyway. One choice of groups serves all layers (scores averaged over them). ``store`` is this project's own.
    """

    needs_query = True
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
        text = int((passage.stretch < 0).sum())
        number, sizes = torch.unique(passage.stretch[passage.stretch >= 0], return_counts=True)
        visual = [int((passage.visual & (passage.stretch == n)).sum()) for n in number]
        count = self._count(sizes.tolist(), visual)
        return text + int(sum(sorted(sizes.tolist(), reverse=True)[:count]))

    @torch.no_grad()
    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        self.check(passage)
        state = state or CacheState(extra={"groups": []})
        waiting = passage if state.pending is None else Passage.joined([state.pending, passage])
        groups: list[Group] = list(state.extra["groups"])
        head = state.memory
        if head is None:
            first = int((waiting.stretch < 0).sum())
            if first == len(waiting) and not last:
                return replace(state, pending=waiting)
            position = torch.arange(first, device=passage.embeds.device)
            head = forward(model, waiting.embeds[:first], None, position)[1] if first else _nothing(self, waiting)
            waiting = waiting.part(first, len(waiting))
        block = waiting.stretch // self.config.block
        change = (block[1:] != block[:-1]).nonzero()[:, 0] + 1
        ends = [*change.tolist(), len(waiting)] if last and len(waiting) else change.tolist()
        begin = 0
        for end in ends:
            groups = self._remember(groups + self._read_block(model, waiting.part(begin, end), head, groups))
            begin = end
        rest = waiting.part(begin, len(waiting))
        return CacheState(head, rest, state.visual + int(passage.visual.sum()), {"groups": groups})

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        head, groups = finished(state, "quantized"), state.extra["groups"]
        query = self.asked(query)
        count = self._count([g.size for g in groups], [g.visual for g in groups])
        if count < len(groups):
            keys = torch.stack([g.mean for g in groups], 1)
            scores = group_scores(model, self.shape, head, query, keys).mean(0)
            chosen = scores.argsort(descending=True, stable=True)[:count].sort().values.tolist()
            groups = [groups[i] for i in chosen]
        return _laid_out(model, head, groups)

    def nbytes(self, state: CacheState) -> int:
        """Bytes that a state holds, packed as it is."""
        head = 0 if state.memory is None else state.memory.nbytes
        return head + int(sum(g.nbytes for g in state.extra["groups"]))

    def _read_block(self, model: Any, block: Passage, head: Memory, groups: list[Group]) -> list[Group]:
        """The groups of one block, read after the head and the window."""
        before = _laid_out(model, head, [g for g in groups if isinstance(g.keys, Tensor)])
        at = before.position
        with watched(model, "k_proj") as seen:
            _, new = forward(model, block.embeds, before, torch.arange(at, at + len(block), device=block.embeds.device))
        number, sizes = torch.unique_consecutive(block.stretch, return_counts=True)
        group = torch.arange(len(number), device=sizes.device).repeat_interleave(sizes)
        means = mean_keys(seen, group, len(number))
        keys, values = torch.cat(new.keys), torch.cat(new.values)
        found, begin = [], 0
        for i, size in enumerate(sizes.tolist()):
            part = slice(begin, begin + size)
            visual = int(block.visual[part].sum())
            # Copies, or every group would hold on to its whole block.
            found.append(
                Group(
                    keys[:, :, part].clone(), values[:, :, part].clone(), means[:, i].clone(), at + begin, size, visual
                )
            )
            begin += size
        return found

    def _remember(self, groups: list[Group]) -> list[Group]:
        """Pack what has left the window, and forget what the store has no place for."""
        total, kept = 0, []
        for group in reversed(groups):
            total += group.size
            raw = isinstance(group.keys, Tensor)
            kept.append(group.packed(self.config.bits) if raw and total > self.config.window else group)
        kept.reverse()
        outside = sum(isinstance(g.keys, Packed) for g in kept)
        while self.config.store and outside > self.config.store:
            means = torch.stack([g.mean.flatten() for g in kept[:outside]])
            alike = F.cosine_similarity(means[1:], means[:-1], dim=-1).round(decimals=5)
            del kept[int(alike.argmax()) + 1 if outside > 1 else 0]
            outside -= 1
        return kept

    def _count(self, sizes: Sequence[int], visual: Sequence[int]) -> int:
        """Groups that are recalled: as many as the budgets hold where all are as large as the largest."""
        if not sizes:
            return 0
        wanted = int(self.config.retention * len(sizes) + 0.5)
        most: int = self.config.most // max(sizes)
        return max(1, min(wanted, most, len(sizes)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 2, "window": 12, "block": 2},
            {"retention": 1 / 4, "bits": 2, "window": 0, "block": 1},
        ]


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
