"""Any press of kvpress that keeps one number of keys in all layers and heads, as a cache compressor."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vxl_kvpress.choice import made, refuse
from vxl_kvpress.hooks import listening
from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape, Memory, Passage, finished
from vxl_lightning.caches.forward import forward

MOVES_KEYS = "KeyRerotationPress"
"""Turns the keys that it keeps to consecutive positions; all others leave them where they were read."""


class PressedCache(CacheCompressor):
    """A press of kvpress: the whole prompt is read at once, and every layer's keys and values are thinned by a score.

    Each press is a method with a paper of its own, which its docstring names: SnapKV, expected attention, key norms,
    StreamingLLM and others. Which places stay may differ from head to head and from layer to layer; how many, not.

    *What is counted.* A press knows no text: the chat's head and the time text compete with the visual tokens, and
    ``retention`` is the fraction of all places, so ``kv_length`` is ``int(n * retention)`` of a prompt's n places, at
    least 1, as kvpress rounds it. Other caches keep all text and count visual tokens alone; at one ``retention`` they
    recall more. Presses with sinks (``n_sink``) keep the first places and those with a window the last ones whatever
    they are. A prompt that shows nothing is kept whole.

    *When.* A press compresses at the end of a prefill. Parts of a prompt wait, as embeddings, until the last has come;
    then all are read in one causal pass, whose time and memory are those of the whole prompt. A stream reads all of it
    again for every question.

    Follows kvpress 0.5.5 (Devoto et al., arXiv 2510.00636; Apache-2.0), which is imported and not part of this package:
    keys and values are, bit for bit, those that it leaves by itself; what it needs of an older transformers is supplied
    (`hooks`).
    It differs in that a press that draws random numbers is seeded, and that the model is left without the rotary
    embedding that kvpress adds to every attention. Among equal scores the choice is that of ``torch.topk``.
    """

    origin = (
        "kvpress (arXiv 2510.00636; NVIDIA/kvpress, Apache-2.0), imported where it is installed; adapter from scratch"
    )

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
        return max(min(n, 1), int(n * (1 - self._ratio(passage))))

    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        self.check(passage)
        state = state or CacheState()
        if state.memory is not None:
            if len(passage):
                raise ValueError("press: the prompt was read to its end and compressed; go on from the state before it")
            return state
        waiting = passage if state.pending is None else Passage.joined([state.pending, passage])
        visual = state.visual + int(passage.visual.sum())
        if not last or not len(waiting):
            return CacheState(None, waiting, visual)
        return CacheState(self._pressed(model, waiting), None, visual)

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        if state.pending is not None and len(state.pending):
            raise ValueError(f"press: {len(state.pending)} places wait for the end of the prompt; read with last=True")
        return finished(state, "press")

    def nbytes(self, state: CacheState) -> int:
        """Bytes that a state holds: keys and values, or the embeddings that wait."""
        return super().nbytes(state) + (0 if state.pending is None else state.pending.embeds.nbytes)

    def _ratio(self, passage: Passage) -> float:
        """What kvpress calls the compression ratio."""
        return 1 - self.config.retention if bool(passage.visual.any()) else 0.0

    def _pressed(self, model: Any, prompt: Passage) -> Memory:
        """Keys and values of a whole prompt, compressed."""
        name, n, count = self.config.press, len(prompt), self.kv_length(prompt)
        self.press.compression_ratio = self._ratio(prompt)
        try:
            with listening(self.press, model, self.config.seed):
                _, memory = forward(model, prompt.embeds, None, torch.arange(n, device=prompt.embeds.device))
        except AssertionError as error:  # how kvpress says that a prompt is too short, for one
            given = self.config.parameters
            raise ValueError(f"press={name} with parameters={given}, a prompt of {n} places: {error}") from error
        left = sorted({int(t.shape[2]) for t in (*memory.keys, *memory.values)})
        if left != [count]:
            raise ValueError(
                f"press={name} left {left} of {n} keys where {count} were announced; it cannot be used here"
            )
        return replace(memory, position=count) if name == MOVES_KEYS else memory

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"press": "KnormPress", "retention": 1 / 2},
            {"press": "SnapKVPress", "parameters": {"window_size": 2, "kernel_size": 3}},
            {"press": "ExpectedAttentionPress", "parameters": {"n_sink": 1, "n_future_positions": 8}},
            {"press": "KeyRerotationPress", "parameters": {"press": {"name": "StreamingLLMPress", "n_sink": 1}}},
        ]
