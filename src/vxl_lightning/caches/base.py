"""The cache contract: a language model reads a video, and fewer keys and values are left for the question to attend to.

Where a `Compressor` works before the language model, a `CacheCompressor` works inside it: it decides how the prompt is
read (in windows, in blocks) and what of its keys and values stays. It never changes the model: what it needs of a
forward pass it takes through hooks that are gone when the pass is over.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.caches.forward import attentions
from vxl_lightning.caches.memory import Memory, Passage

__all__ = ["CacheCompressor", "CacheState", "LanguageShape", "Memory", "Passage"]


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
        """Of a transformers causal language model.

        Raises:
            ValueError: the model's layers are laid out otherwise than Llama's and Qwen's.
        """
        c, attention = model.config, attentions(model)[0]
        size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
        bias = getattr(attention.q_proj, "bias", None) is not None
        return cls(c.num_hidden_layers, c.hidden_size, c.num_attention_heads, heads, size, bias)


@dataclass(frozen=True, eq=False)
class CacheState:
    """What is left of a prompt that is being read; methods extend it.

    A state is never changed: reading gives a new one, so a question may be asked in between.

    Attributes:
        memory: keys and values, or None before anything was read.
        pending: places that wait for the rest of their window, or None.
        ended: the prompt was read to its end.
        reached: stretch of the last place that came, read or pending.
    """

    memory: Memory | None = None
    pending: Passage | None = None
    ended: bool = False
    reached: int = -1


class CacheCompressor(nn.Module, ABC):
    """Reads a prompt and keeps less of it than all keys and values.

    Built as ``Class(Config(...), shape)`` with the `LanguageShape`. A subclass writes ``kv_length`` and
    ``read_window``, and where the defaults do not do, ``start``, ``ends`` and ``attended``. Callers use ``read`` and
    ``recall``, which check what comes in, join what was cut apart, and hand whole windows on.

    Traits:
        trainable: has parameters that learn, through the answers' loss.
        needs_query: what is recalled depends on the question.
        budget: ``exact`` when ``kv_length`` is the count, ``bound`` when it is the most that it can come to. Set on
            the instance where the config decides.
        exact_at_one: with ``retention=1`` nothing is lost: the answers are those of plain causal attention. Set on the
            instance where the config decides.
        keeps_positions: every place is read where ``Passage.position`` says it stands, and no key is moved.
        stretches_per_group: stretches that are kept at one level of detail; the budget is met to one such group. Set
            on the instance where the config decides.
        origin: paper and licence of the original.
    """

    trainable: ClassVar[bool] = False
    needs_query: ClassVar[bool] = False
    budget: ClassVar[str] = "exact"
    exact_at_one: ClassVar[bool] = True
    keeps_positions: ClassVar[bool] = False
    stretches_per_group: int = 1
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
        """Keys of a layer that are recalled after a whole prompt, text included (the most there can be where ``budget``
        is ``bound``): a function of ``visual`` and ``stretch`` alone."""

    def visual_length(self, passage: Passage) -> int:
        """How many of ``kv_length`` are visual tokens, or stand for some: exact, or the most, where ``kv_length`` is.

        All but the text, by default; methods that forget text as well count for themselves.
        """
        return self.kv_length(passage) - int((~passage.visual).sum())

    @abstractmethod
    def read_window(self, model: Any, window: Passage, state: Any) -> CacheState:
        """Read one whole window.

        Args:
            model: a transformers causal language model.
            window: places between two of ``ends``.
            state: of what came before; ``pending`` and ``ended`` are not for methods to touch.
        """

    def start(self) -> CacheState:
        """What a prompt begins with."""
        return CacheState()

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        """Where the windows end that can be read now; the places behind the last end wait. All of them by default.

        Where windows end may not depend on how the prompt was cut into parts.

        Args:
            waiting: places not yet read.
            last: nothing follows them.
        """
        return [len(waiting)] if len(waiting) else []

    def attended(self, model: Any, state: Any, query: Tensor | None) -> Memory:
        """What a question attends to, of a prompt that has ended: all that is remembered by default."""
        memory: Memory = state.memory
        return memory

    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        """Read a prompt, or the next part of one.

        Args:
            model: a transformers causal language model.
            passage: the next places; parts may be cut anywhere.
            state: what the part before left, or None at the beginning.
            last: nothing follows; what waits for the rest of its window is finished.

        Raises:
            ValueError: embeddings with NaN or of another width, stretches out of order, a prompt that has ended.
        """
        self.check(passage)
        state = self.start() if state is None else state
        if len(passage) and int(passage.stretch[0]) < state.reached:
            raise ValueError(
                f"{type(self).__name__}: this part begins with stretch {int(passage.stretch[0])}, but the one before "
                f"it reached {state.reached}; stretches must not fall, so read a prompt's parts in the order of time"
            )
        if state.ended:
            raise ValueError(f"{type(self).__name__}: this prompt has ended; read its parts with last=False")
        waiting = passage if state.pending is None else Passage.joined([state.pending, passage])
        begin = 0
        for end in self.ends(waiting, last):
            state = self.read_window(model, waiting.part(begin, end), state)
            begin = end
        rest = waiting.part(begin, len(waiting))
        reached = int(passage.stretch[-1]) if len(passage) else state.reached
        return replace(state, pending=rest if len(rest) else None, ended=last, reached=reached)

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        """What a question attends to.

        Args:
            model: that read the prompt.
            state: of a prompt that was read to its end.
            query: ``[q, hidden]``, the embedded question, for methods whose trait ``needs_query`` is set.

        Raises:
            ValueError: a query that is needed and missing, or a prompt not read to its end.
        """
        name = type(self).__name__
        if not state.ended:
            raise ValueError(f"{name}: the prompt goes on; read its last part, or an empty one, with last=True")
        if state.memory is None:
            raise ValueError(f"{name}: the prompt was empty; there is nothing to recall")
        if self.needs_query and query is None:
            raise ValueError(f"{name} recalls by the question: pass query=[q, hidden]")
        if query is not None:
            self._check_embeds(query, "query")
        return self.attended(model, state, query)

    def nbytes(self, state: Any) -> int:
        """Bytes that a state holds for the language model."""
        return 0 if state.memory is None else int(state.memory.nbytes)

    def check(self, passage: Passage) -> Passage:
        """What ``read`` can take.

        Raises:
            ValueError: another width than the language model's, NaN, stretches out of order.
        """
        name = type(self).__name__
        self._check_embeds(passage.embeds, "embeds")
        if len({len(passage.embeds), len(passage.visual), len(passage.stretch)}) != 1:
            raise ValueError(f"{name}: embeds, visual and stretch of a passage differ in length")
        if bool((passage.stretch[1:] < passage.stretch[:-1]).any()):
            raise ValueError(f"{name}: the stretches of a passage must not fall; lay it out in the order of time")
        return passage

    def _check_embeds(self, embeds: Tensor, what: str) -> None:
        name = type(self).__name__
        if embeds.ndim != 2 or embeds.shape[1] != self.shape.hidden:
            raise ValueError(f"{name} was built for hidden={self.shape.hidden}, got {what} {tuple(embeds.shape)}")
        if not bool(torch.isfinite(embeds).all()):
            raise ValueError(f"{name}: {what} has NaN or infinite values; check the projector and its input")

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        """Config keyword arguments of tiny instances for the conformance kit, whose prompts have 4 visual tokens a
        stretch."""
        return [{"retention": 1 / 2}, {"retention": 1 / 4}]
