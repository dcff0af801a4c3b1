"""The cache contract: a language model reads a video, and fewer keys and values are left for the question to attend to.

Where a `Compressor` works before the language model, a `CacheCompressor` works inside it: it decides how the prompt is
read (in windows, in blocks) and what of its keys and values stays. It never changes the model: what it needs of a
forward pass it takes through hooks that are gone when the pass is over.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LanguageShape:
    """What a trained cache compressor is built for: sizes of the language model's attention."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False

    @classmethod
    def of(cls, model: Any) -> "LanguageShape":
        """Of a transformers causal language model."""
        c = model.config
        size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
        bias = getattr(getattr(model.base_model.layers[0].self_attn, "q_proj", None), "bias", None) is not None
        return cls(c.num_hidden_layers, c.hidden_size, c.num_attention_heads, heads, size, bias)


@dataclass(frozen=True, eq=False)
class Passage:
    """Part of a prompt, embedded.

    Attributes:
        embeds: ``[n, hidden]``.
        visual: ``[n]`` bool, True on visual tokens, False on the chat's head and on time text.
        stretch: ``[n]`` int64, the stretch of frames that a place belongs to, its time text included; -1 for the head.
            Never falls.
    """

    embeds: Tensor
    visual: Tensor
    stretch: Tensor

    def __len__(self) -> int:
        return len(self.embeds)

    def part(self, begin: int, end: int) -> "Passage":
        """Places ``begin:end``."""
        return Passage(self.embeds[begin:end], self.visual[begin:end], self.stretch[begin:end])

    @staticmethod
    def joined(parts: Sequence["Passage"]) -> "Passage":
        """One after another."""
        names = ("embeds", "visual", "stretch")
        return Passage(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of every layer, ``[1, kv_heads, m, head_dim]`` each, the keys rotated to where they stand.

    Attributes:
        keys: a tensor a layer; m may differ between layers only where a method says so.
        values: likewise.
        position: of the token that follows.
    """

    keys: list[Tensor]
    values: list[Tensor]
    position: int

    def __len__(self) -> int:
        return max((int(k.shape[2]) for k in self.keys), default=0)

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


@dataclass(frozen=True, eq=False)
class CacheState:
    """What is left of a video that is being read; methods extend it.

    Attributes:
        memory: keys and values, or None before anything was read.
        pending: places that wait for the rest of their window, or None.
        visual: visual tokens read so far.
    """

    memory: Memory | None = None
    pending: Passage | None = None
    visual: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


class CacheCompressor(nn.Module, ABC):
    """Reads a prompt and keeps less of it than all keys and values.

    Built as ``Class(Config(...), shape)`` with the `LanguageShape`; a subclass writes ``read``, ``recall`` and
    ``kv_length``.

    Traits:
        trainable: has parameters that learn, through the answers' loss.
        needs_query: what is recalled depends on the question.
        origin: paper and licence of the original.
        exact_at_one: with ``retention=1`` nothing is lost: the answers are those of plain causal attention.
    """

    trainable: ClassVar[bool] = False
    needs_query: ClassVar[bool] = False
    exact_at_one: ClassVar[bool] = True
    origin: ClassVar[str] = ""
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        retention: float = 1 / 4
        """Fraction of the visual tokens' keys and values that the question attends to, in (0, 1]."""

        def __post_init__(self) -> None:
            if not 0 < self.retention <= 1:
                raise ValueError(f"retention={self.retention} is not in (0, 1]; 0.25 keeps one in four")

    config: Any

    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__()
        self.config = config
        self.shape = shape

    def start_from(self, model: Any) -> None:
        """Take initial weights from the language model; nothing for methods without weights."""

    @abstractmethod
    def kv_length(self, passage: Passage) -> int:
        """Keys of a layer that are recalled after a whole prompt, text included: a function of ``visual`` and
        ``stretch`` alone, exact."""

    @abstractmethod
    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        """Read a prompt, or the next part of one.

        Args:
            model: a transformers causal language model.
            passage: the next places; parts may be cut anywhere.
            state: what the part before left, or None at the beginning.
            last: nothing follows; what waits for the rest of its window is finished.

        Raises:
            ValueError: embeddings with NaN, or of another width.
        """

    @abstractmethod
    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        """What a question attends to.

        Args:
            state: of a prompt that was read to its end.
            query: ``[q, hidden]``, the embedded question, for methods whose trait ``needs_query`` is set.

        Raises:
            ValueError: a query that is needed and missing, or a prompt not read to its end.
        """

    def check(self, passage: Passage) -> Passage:
        """What ``read`` can take.

        Raises:
            ValueError: another width than the language model's, NaN, stretches out of order.
        """
        name = type(self).__name__
        if passage.embeds.ndim != 2 or passage.embeds.shape[1] != self.shape.hidden:
            raise ValueError(
                f"{name} was built for hidden={self.shape.hidden}, got embeds {tuple(passage.embeds.shape)}"
            )
        if len({len(passage.embeds), len(passage.visual), len(passage.stretch)}) != 1:
            raise ValueError(f"{name}: embeds, visual and stretch of a passage differ in length")
        if bool((passage.stretch[1:] < passage.stretch[:-1]).any()):
            raise ValueError(f"{name}: the stretches of a passage must not fall; lay it out in the order of time")
        if not bool(torch.isfinite(passage.embeds).all()):
            raise ValueError(f"{name}: embeds has NaN or infinite values; check the projector and its input")
        return passage

    def asked(self, query: Tensor | None) -> Tensor:
        """The question, where there is one.

        Raises:
            ValueError: there is none.
        """
        if query is None:
            raise ValueError(f"{type(self).__name__} recalls by the question: pass query=[q, hidden]")
        return query

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        """Config keyword arguments of tiny instances for the conformance kit."""
        return [{"retention": 1 / 2}, {"retention": 1 / 4}]


def finished(state: CacheState, name: str) -> Memory:
    """The memory of a prompt that was read to its end.

    Raises:
        ValueError: it was not, or is empty.
    """
    if state.memory is None:
        raise ValueError(f"{name}: nothing was read; call read first")
    if state.pending is not None and len(state.pending):
        raise ValueError(f"{name}: {len(state.pending)} places wait for the rest of their window; read with last=True")
    return state.memory
