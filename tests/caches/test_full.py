"""The cache that loses nothing."""

from collections.abc import Callable

import pytest
import torch

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.chunked import ChunkedPrefill
from vxl_lightning.caches.full import FullCache
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.testing.case_cache import language_model, prompt


@parametrize_laws("cache", FullCache)
def test_law(law: Callable[[], None]) -> None:
    law()


def cache() -> FullCache:
    return FullCache(FullCache.Config(), LanguageShape.of(language_model()))


def test_the_shape_is_read_from_the_language_model() -> None:
    assert LanguageShape.of(language_model()) == LanguageShape(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8)


def test_a_family_of_another_layout_has_no_shape() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel: a cache compressor needs layers\[i\]\.self_attn"):
        LanguageShape.of(model)


def test_every_part_is_read_as_it_comes() -> None:
    full, passage = cache(), prompt([4, 4])
    state = full.read(language_model(), passage.part(0, 8), last=False)
    assert state.pending is None and state.memory is not None
    assert len(state.memory) == state.memory.position == 8


@pytest.mark.parametrize("cut", [3, 8, 12])
def test_stretches_do_not_fall_across_a_cut_either(cut: int) -> None:
    full, passage, model = cache(), prompt([4, 4]), language_model()
    for module in (full, ChunkedPrefill(ChunkedPrefill.Config(), full.shape)):  # one that lets places wait
        state = module.read(model, passage.part(0, cut), last=False)
        state = module.read(model, passage.part(cut, cut), state, last=False)
        assert module.read(model, passage.part(cut, len(passage)), state).ended
        first = int(passage.stretch[cut - 1]) - 1
        with pytest.raises(ValueError, match=f"begins with stretch {first}, but the one before it reached {first + 1}"):
            module.read(model, prompt([4], head=0, first=first), state)


def test_bytes_are_those_of_all_keys_and_values() -> None:
    full, passage = cache(), prompt([4, 4])
    state = full.read(language_model(), passage)
    assert full.nbytes(state) == 2 * 2 * 2 * len(passage) * 8 * 4  # keys and values, layers, heads, places, size, bytes


def test_a_memory_taken_apart_and_joined_is_the_same() -> None:
    memory = cache().read(language_model(), prompt([4, 4])).memory
    assert memory is not None
    joined = memory.joined([memory.cut(0, 3), memory.cut(3, 3), memory.cut(3, len(memory))], memory.position)
    taken = memory.take(torch.arange(len(memory)))
    for other in (joined, taken):
        assert all(
            torch.equal(a, b) for a, b in zip(memory.keys + memory.values, other.keys + other.values, strict=True)
        )


def test_another_retention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"retention=0\.5.*only 1 is allowed"):
        FullCache.Config(retention=0.5)
