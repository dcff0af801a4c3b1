"""A pass in which some places attend to more: what they see, and that the model is left as it was."""

import copy
from typing import Any

import pytest
import torch

from vxl_lightning.caches.forward import extended, forward
from vxl_lightning.caches.further import forward_further
from vxl_lightning.testing.case_cache import language_model, prompt

PASSAGE = prompt([4] * 4)
N, OLD = len(PASSAGE), 12
NEAR = torch.tensor([0, 1, 5, 9])
"""What the others see of the first `OLD` places."""
PLACES = torch.tensor([2, 3, N - OLD - 1])
"""Of the rest, those that see all."""


def answer(model: Any, places: torch.Tensor = PLACES) -> torch.Tensor:
    memory = extended(model, PASSAGE.embeds[:OLD], None)
    rest, position = PASSAGE.embeds[OLD:], torch.arange(OLD, N)
    return forward_further(model, rest, memory.take(NEAR), position, places, memory)[0]


def masked(model: Any, places: torch.Tensor = PLACES) -> torch.Tensor:
    sees = torch.ones(N, N).tril().bool()
    hidden = torch.ones(OLD).bool().index_fill(0, NEAR, False)
    rows = torch.arange(OLD, N)
    rows = rows[~torch.isin(rows - OLD, places)]
    sees[rows[:, None], hidden.nonzero()[:, 0]] = False
    return forward(model, PASSAGE.embeds, None, torch.arange(N), sees)[0][OLD:]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("places", [PLACES, PLACES[:1], torch.arange(N - OLD), PLACES[:0]])
def test_it_is_one_pass_under_a_mask(implementation: str, places: torch.Tensor) -> None:
    model = copy.deepcopy(language_model())
    model.config._attn_implementation = implementation
    torch.testing.assert_close(answer(model, places), masked(model, places), atol=1e-5, rtol=1e-4)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Mistral"])
def test_in_other_families(name: str) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)
    torch.testing.assert_close(answer(model), masked(model), atol=1e-5, rtol=1e-4)


def test_an_interrupted_pass_leaves_the_attention_as_it_was() -> None:
    model = copy.deepcopy(language_model())
    before = model.config._attn_implementation

    def interrupt(*_: Any) -> None:
        raise KeyError("interrupted")

    model.base_model.layers[1].mlp.register_forward_pre_hook(interrupt)
    memory = extended(language_model(), PASSAGE.embeds[:OLD], None)
    with pytest.raises(KeyError, match="interrupted"):
        forward_further(model, PASSAGE.embeds[OLD:], None, torch.arange(OLD, N), PLACES, memory)
    assert model.config._attn_implementation == before


def test_a_model_whose_attention_cannot_be_replaced_is_refused() -> None:
    model = copy.deepcopy(language_model())
    model.base_model._supports_attention_backend = False
    memory = extended(model, PASSAGE.embeds[:OLD], None)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM: its attention cannot be replaced.*previous=-1"):
        forward_further(model, PASSAGE.embeds[OLD:], None, torch.arange(OLD, N), PLACES, memory)


def test_nothing_is_replaced_where_all_is_seen_anyway() -> None:
    model = copy.deepcopy(language_model())
    model.base_model._supports_attention_backend = False
    memory = extended(model, PASSAGE.embeds[:OLD], None)
    rest, position = PASSAGE.embeds[OLD:], torch.arange(OLD, N)
    want = forward(model, rest, memory, position)[0]
    torch.testing.assert_close(forward_further(model, rest, memory, position, PLACES, memory)[0], want)
