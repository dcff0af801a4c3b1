"""Nothing is lost: plain causal attention. The row that every other cache compressor compares with."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, Memory, Passage, finished
from vxl_lightning.caches.forward import forward


class FullCache(CacheCompressor):
    """All keys and values of the whole prompt."""

    origin = "Baseline; written here from scratch"

    @dataclass(frozen=True, kw_only=True)
    class Config(CacheCompressor.Config):
        retention: float = 1.0
        """Always 1."""

        def __post_init__(self) -> None:
            if self.retention != 1:
                raise ValueError(f"retention={self.retention}: the cache 'full' keeps everything, so only 1 is allowed")

    def kv_length(self, passage: Passage) -> int:
        return len(passage)

    def read(self, model: Any, passage: Passage, state: CacheState | None = None, last: bool = True) -> CacheState:
        self.check(passage)
        state = state or CacheState()
        begin = 0 if state.memory is None else state.memory.position
        position = torch.arange(begin, begin + len(passage), device=passage.embeds.device)
        _, new = forward(model, passage.embeds, state.memory, position)
        memory = new if state.memory is None else Memory.joined([state.memory, new], new.position)
        return CacheState(memory, None, state.visual + int(passage.visual.sum()))

    def recall(self, model: Any, state: CacheState, query: Tensor | None = None) -> Memory:
        return finished(state, "full")

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}]
