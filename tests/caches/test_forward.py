"""What caches ask of a language model: passes after a memory, keys moved, and a plain refusal of other families."""

import copy
from typing import Any

import pytest
import torch

from vxl_lightning.caches.forward import attentions, forward, turned, watched
from vxl_lightning.testing.case_cache import HIDDEN, language_model, prompt


def model_with(**rope: Any) -> Any:
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(language_model().config)
    config.rope_parameters = {**config.rope_parameters, **rope}
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    model.load_state_dict(language_model().state_dict())
    return model


@pytest.mark.parametrize("rope", [{}, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}])
def test_turned_keys_are_the_keys_computed_at_the_new_position(rope: dict[str, Any]) -> None:
    model, embeds = model_with(**rope), prompt([4, 4]).embeds
    position = torch.arange(len(embeds))
    here, there = forward(model, embeds, None, position)[1], forward(model, embeds, None, position + 37)[1]
    moved = turned(model, here.keys, torch.full_like(position, 37))
    back = turned(model, there.keys, torch.full_like(position, -37))
    for layer in range(2):
        assert not torch.allclose(here.keys[layer], there.keys[layer], atol=1e-2)
        torch.testing.assert_close(moved[layer], there.keys[layer], atol=2e-5, rtol=0)
        torch.testing.assert_close(back[layer], here.keys[layer], atol=2e-5, rtol=0)


def test_every_place_is_turned_by_its_own_amount() -> None:
    model, embeds = language_model(), prompt([4, 4]).embeds
    position = torch.arange(len(embeds))
    other = torch.tensor([3, 90, 4, 4, 0, *range(60, 60 + len(embeds) - 5)])
    here, there = (forward(model, embeds, None, p)[1].keys[0] for p in (position, other))
    moved = turned(model, [here], other - position)[0]
    torch.testing.assert_close(moved, there, atol=2e-5, rtol=0)


def test_keys_that_stay_are_left_bit_for_bit() -> None:
    keys = [torch.randn(1, 2, 5, 8).bfloat16()]
    assert torch.equal(turned(language_model(torch.bfloat16), keys, torch.zeros(5, dtype=torch.long))[0], keys[0])


def test_a_pass_after_a_memory_is_the_end_of_the_whole_pass() -> None:
    model, embeds = language_model(), prompt([4, 4]).embeds
    position = torch.arange(len(embeds))
    states, whole = forward(model, embeds, None, position)
    _, memory = forward(model, embeds[:9], None, position[:9])
    rest, new = forward(model, embeds[9:], memory, position[9:])
    torch.testing.assert_close(rest, states[9:], atol=1e-5, rtol=1e-4)
    assert new.position == len(embeds) and len(new) == len(embeds) - 9
    torch.testing.assert_close(new.keys[1], whole.keys[1][:, :, 9:], atol=1e-5, rtol=1e-4)


def test_places_see_what_the_mask_says() -> None:
    model, embeds = language_model(), prompt([4, 4]).embeds[:6]
    sees = torch.ones(6, 6).tril().bool()
    sees[4:, 1:4] = False  # a second branch after place 0
    position = torch.tensor([0, 1, 2, 3, 1, 2])
    tree = forward(model, embeds, None, position, sees)[0]
    alone = forward(model, embeds[[0, 4, 5]], None, torch.arange(3))[0]
    torch.testing.assert_close(tree[4:], alone[1:], atol=1e-5, rtol=1e-4)


def test_what_is_watched_is_before_rotation_and_without_gradient() -> None:
    model, embeds = language_model(), prompt([4]).embeds.requires_grad_()
    for begin in (0, 50):
        with watched(model, "k_proj") as seen:
            forward(model, embeds, None, torch.arange(begin, begin + len(embeds)))
        layer = model.base_model.layers[0]
        want = layer.self_attn.k_proj(layer.input_layernorm(embeds))
        assert len(seen) == 2 and not seen[0].requires_grad
        torch.testing.assert_close(seen[0][0], want.detach())


def test_other_families_are_refused_by_name() -> None:
    class Other(torch.nn.Module):
        @property
        def base_model(self) -> torch.nn.Module:
            return self

    with pytest.raises(ValueError, match=r"Other: a cache compressor needs layers\[i\]\.self_attn"):
        attentions(Other())
    with pytest.raises(ValueError, match="Other has no rotary_emb"):
        turned(Other(), [torch.zeros(1, 2, 3, HIDDEN)], torch.zeros(3, dtype=torch.long))
