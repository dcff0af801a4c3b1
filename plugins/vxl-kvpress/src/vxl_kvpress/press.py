"""Any press of kvpress that keeps one number of keys in all layers and heads, as a cache compressor."""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from vxl_kvpress.choice import held, made, refuse
from vxl_kvpress.hooks import listening
from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Passage

MOVES_KEYS = "KeyRerotationPress"
"""Turns the keys that it keeps to consecutive positions; all others leave them where they were read."""


class PressedCache(CacheCompressor):
    """A press of kvpress: the whole prompt is read at once, and every layer's keys and values are thinned by a score.

    Each press is a method with a paper of its own, which its docstring names: SnapKV, expected attention, key norms,
    StreamingLLM and others. Which places stay may differ from head to head and from layer to layer; how many, not.

    *What is counted.* A press knows no text: the chat's head and the time text compete with the visual tokens, and
    ``retention`` is the fraction of all places, so ``kv_length`` is ``int(n * retention)`` of a prompt's n places, at
    least 1, as kvpress rounds it. Caches that keep all text recall more at the same ``retention``. Presses with sinks
    (``n_sink``) keep the first places and those with a window the last ones whatever they are, so as much has to stay.
    A prompt that shows nothing, or is no longer than those, is kept whole.

    *When.* A press compresses at the end of a prefill. Parts of a prompt wait, as embeddings, until the last has come;
    then all are read in one causal pass, whose time and memory are those of the whole prompt. A stream reads all of it
    again for every question.

    Follows kvpress 0.5.5 (Devoto et al., arXiv 2510.00636; Apache-2.0), which is imported and not part of this package:
    keys and values are those that it leaves by itself; what it needs of an older transformers is supplied (`hooks`).
    Differs: a press that draws random numbers is seeded; a prompt that is too short for a window or for sinks is kept
    whole, where kvpress fails; the model is left without the rotary embedding that kvpress adds to every attention.
    Among equal scores the choice is that of ``torch.topk``.
    """

    requires: ClassVar[tuple[str, ...]] = ("kvpress",)
    origin = (
        "kvpress (arXiv 2510.00636; NVIDIA/kvpress, Apache-2.0), imported where it is installed; adapter from scratch"
    )

    known_exceptions: ClassVar[dict[str, str]] = {
        "bf16_agrees": "a press keeps the highest scores, and rounding turns a close choice"
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(CacheCompressor.Config):
        retention: float = 1 / 4
        """Fraction of all keys and values that stay, text among them, in (0, 1]; compression_ratio is 1 minus it."""
        press: str
        """Class of kvpress, such as SnapKVPress, ExpectedAttentionPress, KnormPress or StreamingLLMPress."""
        parameters: dict[str, Any] = field(default_factory=dict)
        """Its further arguments, such as {window_size: 32}; for a press around a press, {press: {name: KnormPress}}."""
        seed: int = 0
        """Of the presses that draw random numbers."""

        def __post_init__(self) -> None:
            super().__post_init__()
            refuse(self.press)

    config: Config

    def __init__(self, config: Config, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.press = made(config.press, config.parameters)

    def kv_length(self, passage: Passage) -> int:
        n = len(passage)
        if n <= held(self.press) or not bool(passage.visual.any()):
            return n
        # The arithmetic of kvpress, so that its rounding is this one.
        return max(1, int(n * (1 - self._ratio)))

    def visual_length(self, passage: Passage) -> int:
        """The most: text and visual tokens compete for the same places."""
        return min(self.kv_length(passage), int(passage.visual.sum()))

    @property
    def _ratio(self) -> float:
        """What kvpress calls the compression ratio."""
        return 1 - float(self.config.retention)

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        """Everything is one window, which ends with the prompt."""
        return [len(waiting)] if last and len(waiting) else []

    def read_window(self, model: Any, window: Passage, state: CacheState) -> CacheState:
        name, n, count = self.config.press, len(window), self.kv_length(window)
        self.press.compression_ratio = self._ratio if count < n else 0.0
        if count < min(held(self.press), n):
            warnings.warn(
                f"press={name}: fewer keys stay than its window or its sinks take ({held(self.press)}), so nothing "
                "else is remembered; lower window_size or n_sink in parameters, or raise retention",
                stacklevel=2,
            )
        try:
            with listening(self.press, model, self.config.seed):
                _, memory = forward(model, window.embeds, None, torch.arange(n, device=window.embeds.device))
        except AssertionError as error:  # how kvpress refuses a prompt or a model
            given = self.config.parameters
            raise ValueError(f"press={name} with parameters={given}, a prompt of {n} places: {error}") from error
        left = sorted({int(t.shape[2]) for t in (*memory.keys, *memory.values)})
        if left != [count]:
            raise ValueError(
                f"press={name} left {left} of {n} keys where {count} were announced; it cannot be used here"
            )
        return replace(state, memory=replace(memory, position=count) if name == MOVES_KEYS else memory)

    def nbytes(self, state: CacheState) -> int:
        """Bytes that a state holds: keys and values, or the embeddings that wait."""
        return super().nbytes(state) + (0 if state.pending is None else state.pending.embeds.nbytes)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"press": "KnormPress", "retention": 1 / 2},
            {"press": "SnapKVPress", "parameters": {"window_size": 2, "kernel_size": 3}},
            {"press": "ExpectedAttentionPress", "parameters": {"n_sink": 1, "n_future_positions": 8}},
            {"press": "KeyRerotationPress", "parameters": {"press": {"name": "StreamingLLMPress", "n_sink": 1}}},
        ]
