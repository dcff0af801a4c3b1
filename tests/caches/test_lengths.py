"""How many of the keys that are recalled are visual tokens, as announced and as counted."""

from typing import Any

import pytest
import torch

from vxl_lightning.caches.base import CacheCompressor, LanguageShape
from vxl_lightning.caches.chunked import ChunkedPrefill
from vxl_lightning.caches.full import FullCache
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.caches.quantized import QuantizedMemory
from vxl_lightning.caches.vst import VisualSummarization
from vxl_lightning.testing.case_cache import HEAD, HIDDEN, language_model, prompt

METHODS: list[tuple[type[CacheCompressor], dict[str, Any]]] = [
    (FullCache, {}),
    (VisualSummarization, {"retention": 1 / 2, "window": 3}),
    (VisualSummarization, {"retention": 1 / 4, "window": 4, "windows": "dynamic"}),
    (VisualSummarization, {"retention": 1.0}),
    (ChunkedPrefill, {"retention": 0.6, "block": 2, "chunk": 1}),
    (ChunkedPrefill, {"retention": 0.8, "block": 2, "chunk": 2, "pool": 3}),
    (QuantizedMemory, {"retention": 0.3, "window": 10_000}),  # all raw, so that values can be told
    (QuantizedMemory, {"retention": 1.0, "window": 10_000, "most": 20}),
]


def recalled(module: CacheCompressor, passage: Passage) -> Memory:
    question = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return module.recall(language_model(), module.read(language_model(), passage), question)


def text_in(memory: Memory, passage: Passage) -> int:
    """Keys of text among those recalled, told by the first layer's values, which depend on their own token alone."""
    layer = language_model().base_model.layers[0]
    own = layer.self_attn.v_proj(layer.input_layernorm(passage.embeds[~passage.visual]))
    values = memory.values[0][0].transpose(0, 1).flatten(1)
    return int(((values[:, None] - own).abs().amax(-1) < 1e-4).any(1).sum())


@pytest.mark.parametrize(("method", "params"), METHODS)
@pytest.mark.parametrize("counts", [[4] * 9, [3, 5, 1, 4, 7, 2, 2, 6, 4], [4], [0, 3, 0], []])
def test_the_visual_length_is_the_length_without_text(
    method: type[CacheCompressor], params: dict[str, Any], counts: list[int]
) -> None:
    passage = prompt(counts)
    module = method(method.Config(**params), LanguageShape.of(language_model())).eval()
    memory = recalled(module, passage)
    visual, announced = len(memory) - text_in(memory, passage), module.visual_length(passage)
    assert isinstance(announced, int) and visual <= announced <= module.kv_length(passage)
    alike = len(set(counts)) < 2 and method is not VisualSummarization  # whichever are chosen
    assert visual == announced or (module.budget == "bound" and not alike)


def test_stretches_that_are_not_recalled_take_their_text_with_them() -> None:
    module = QuantizedMemory(QuantizedMemory.Config(retention=0.5), LanguageShape.of(language_model()))
    passage = prompt([4, 1, 7, 4])
    assert module.kv_length(passage) == HEAD + 9 + 6 and module.visual_length(passage) == 7 + 4
    longer = Passage(passage.embeds, passage.visual & (passage.stretch != 2), passage.stretch)  # one of text alone
    assert module.kv_length(longer) == HEAD + 9 + 6 and module.visual_length(longer) == 4 + 4


def test_without_groups_there_is_nothing_but_the_head() -> None:
    module = QuantizedMemory(QuantizedMemory.Config(), LanguageShape.of(language_model()))
    assert module.kv_length(prompt([])) == HEAD and module.visual_length(prompt([])) == 0
