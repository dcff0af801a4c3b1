"""Presses as cache compressors: those of kvpress, where it is installed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vxl_kvpress import PressedCache
from vxl_kvpress.choice import REFUSED

from vxl_lightning.caches.forward import turned
from vxl_lightning.testing import parametrize_laws

from .presses_made_here import built, language_model, prompt, remembered, same, whole

USABLE: dict[str, dict[str, Any]] = {
    "BlockPress": {"press": "KeyDiffPress", "block_size": 16},
    "CapPress": {"n_future_positions": 8},
    "CompactorPress": {},
    "CriticalKVPress": {"press": "TOVAPress"},
    "CURPress": {},
    "EntropyGatedChunkKVPress": {"press": {"name": "SnapKVPress", "window_size": 4}},
    "ExpectedAttentionPress": {"n_future_positions": 8},
    "KeyDiffPress": {},
    "KeyRerotationPress": {"press": "KnormPress"},
    "KnormPress": {},
    "LagKVPress": {"lag_size": 8},
    "LeverageScorePress": {},
    "MergingPress": {"press": "KnormPress"},
    "NonCausalAttnPress": {"chunk_size": 16},
    "RandomPress": {},
    "SnapKVPress": {"window_size": 8},
    "StreamingLLMPress": {},
    "TOVAPress": {},
}


@pytest.mark.parametrize("name", USABLE)
def test_a_press_leaves_what_it_leaves_of_plain_keys_and_values(kvpress: Any, name: str) -> None:
    """The press is asked layer by layer, about keys and values of a pass that it did not listen to."""
    model, passage = language_model(), prompt(61)
    cache = built(model, name, retention=0.3, parameters=USABLE[name])
    memory = remembered(cache, model, passage)
    assert len(memory) == cache.kv_length(passage) == 18
    seen: list[dict[str, Any]] = []

    def listen(_module: Any, _given: Any, kwargs: dict[str, Any], _output: Any) -> None:
        seen.append(kwargs)

    hooks = [layer.self_attn.register_forward_hook(listen, with_kwargs=True) for layer in model.model.layers]
    everything = whole(model, passage)
    for hook in hooks:
        hook.remove()
    assert same(remembered(built(model, name, retention=1, parameters=USABLE[name]), model, passage), everything)
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.rotary_emb = model.model.rotary_emb
        torch.manual_seed(i)
        keys, values = cache.press.compress(
            layer.self_attn, seen[i]["hidden_states"], everything.keys[i], everything.values[i], None, seen[i]
        )
        assert torch.equal(memory.keys[i], keys)
        assert torch.equal(memory.values[i], values)


def test_sinks_and_the_last_places_stay_and_rerotation_moves_them_together(kvpress: Any) -> None:
    model, passage = language_model(), prompt(20)
    everything, kept = whole(model, passage), torch.tensor([0, 1, 17, 18, 19])
    plain = remembered(built(model, "StreamingLLMPress", parameters={"n_sink": 2}), model, passage)
    for got, had in zip(plain.values, everything.values, strict=True):
        assert sorted(map(tuple, got[0, 0].tolist())) == sorted(map(tuple, had[0, 0, kept].tolist()))
    inner = {"name": "StreamingLLMPress", "n_sink": 2}
    moved = remembered(built(model, "KeyRerotationPress", parameters={"press": inner}), model, passage)
    assert (plain.position, moved.position) == (20, 5)
    expected = turned(model, [k[:, :, kept] for k in everything.keys], torch.arange(5) - kept)
    torch.testing.assert_close(moved.keys, expected)


def test_every_refused_press_is_one_of_kvpress(kvpress: Any) -> None:
    assert [name for name in REFUSED if not hasattr(kvpress, name)] == []


@parametrize_laws("cache", PressedCache)
def test_law_with_kvpress(law: Callable[[], None], kvpress: Any) -> None:
    law()


def test_the_attention_of_other_models_is_left_alone(kvpress: Any) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    model = language_model()
    whole(model, prompt(5))
    assert not any(hasattr(layer.self_attn, "masked_key_indices") for layer in model.model.layers)
