"""Nothing is lost: plain causal attention. The row that every other cache compressor compares with."""

from dataclasses import dataclass, replace
from typing import Any

from vxl_lightning.caches.base import CacheCompressor, CacheState, Passage
from vxl_lightning.caches.forward import extended


class FullCache(CacheCompressor):
    """All keys and values of the whole prompt, each part read as it comes."""

    keeps_positions = True
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

    def read_window(self, model: Any, window: Passage, state: CacheState) -> CacheState:
        return replace(state, memory=extended(model, window.embeds, state.memory, window.position))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}]
