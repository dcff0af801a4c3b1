"""What a cache compressor is given and what it leaves: part of a prompt, and keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Passage:
    """Part of a prompt, embedded.

    Attributes:
        embeds: ``[n, hidden]``.
        visual: ``[n]`` bool, True on visual tokens, False on the chat's head and on time text.
        stretch: ``[n]`` int64, the stretch of frames that a place belongs to, its time text included; -1 for the head.
            Never falls.
        position: ``[n]``, or ``[3, n]`` where the model's positions are of time, height and width: where the places
            stand, for cache compressors that keep positions; None is one after another.
    """

    embeds: Tensor
    visual: Tensor
    stretch: Tensor
    position: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def part(self, begin: int, end: int) -> "Passage":
        """Places ``begin:end``."""
        position = None if self.position is None else self.position[..., begin:end]
        return Passage(self.embeds[begin:end], self.visual[begin:end], self.stretch[begin:end], position)

    def positions(self, begin: int) -> Tensor:
        """Where the places stand; from ``begin`` on where the passage does not say."""
        if self.position is not None:
            return self.position
        return torch.arange(begin, begin + len(self), device=self.embeds.device)

    def starts(self, size: int) -> list[int]:
        """Where runs of ``size`` stretches begin, by their numbers; the head is a run of its own."""
        number = self.stretch // size
        change = (number[1:] != number[:-1]).nonzero()[:, 0] + 1
        return [0, *change.tolist()] if len(self) else []

    @staticmethod
    def joined(parts: Sequence["Passage"]) -> "Passage":
        """One after another."""
        names = ("embeds", "visual", "stretch")
        said = [p.position for p in parts if p.position is not None]
        position = torch.cat(said, -1) if said else None
        embeds, visual, stretch = (torch.cat([getattr(p, name) for p in parts]) for name in names)
        return Passage(embeds, visual, stretch, position)


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of every layer, ``[1, kv_heads, m, head_dim]`` each, the keys rotated to where they stand.

    Attributes:
        keys: a tensor a layer, of one m.
        values: likewise.
        position: of the token that follows.
    """

    keys: list[Tensor]
    values: list[Tensor]
    position: int

    def __len__(self) -> int:
        return int(self.keys[0].shape[2])

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def take(self, index: Tensor) -> "Memory":
        """Only the places ``index [m']``, the same in every layer."""
        return replace(self, keys=[k[:, :, index] for k in self.keys], values=[v[:, :, index] for v in self.values])

    def cut(self, begin: int, end: int) -> "Memory":
        """Places ``begin:end``, as views."""
        return replace(
            self, keys=[k[:, :, begin:end] for k in self.keys], values=[v[:, :, begin:end] for v in self.values]
        )

    @staticmethod
    def joined(parts: Sequence["Memory"], position: int) -> "Memory":
        """One after another, as far as they hold anything."""
        held = [p for p in parts if len(p)] or list(parts[:1])
        layers = range(len(held[0].keys))
        return Memory(
            [torch.cat([p.keys[i] for p in held], 2) for i in layers],
            [torch.cat([p.values[i] for p in held], 2) for i in layers],
            position,
        )


def ends(starts: list[int], length: int, last: bool) -> list[int]:
    """Where runs that begin at ``starts`` end; the last of them only where nothing follows."""
    return [*starts[1:], length] if last and length else starts[1:]


def sizes(starts: list[int], length: int) -> list[int]:
    """How long each run is."""
    return [b - a for a, b in zip(starts, ends(starts, length, True), strict=True)]
