"""What caches ask of a language model: passes after a memory, keys moved, and a plain refusal of other families."""

import copy
from typing import Any

import pytest
import torch

from vxl_lightning.caches.forward import attentions, extended, forward, turned, watched
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


# --- families --------------------------------------------------------------------------------------------------------


def tiny(family: str, **more: Any) -> Any:
    """A random model of another family, ``Qwen3`` for example, of the size of the kit's."""
    import transformers

    of_text = getattr(transformers, f"{family}TextConfig", None)  # of families that also see
    config = (of_text or getattr(transformers, f"{family}Config"))(
        **{
            "vocab_size": 16,
            "pad_token_id": 0,
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "initializer_range": 0.2,
            **more,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval().requires_grad_(False)


def turn(model: Any) -> None:
    turned(model, [torch.zeros(1, 2, 3, 8, dtype=model.dtype)] * 2, torch.zeros(3, dtype=torch.long))


def forwards(model: Any) -> list[int]:
    """Grows by one at every pass."""
    seen: list[int] = []
    model.base_model.layers[0].register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_families_whose_halves_rotate_are_checked_once(family: str, dtype: torch.dtype) -> None:
    model = tiny(family).to(dtype)
    passes, state = forwards(model), torch.get_rng_state()
    turn(model)
    assert len(passes) == 2 and torch.equal(state, torch.get_rng_state())
    turn(model)
    assert len(passes) == 2


def test_dropout_in_training_does_not_upset_the_check() -> None:
    turn(tiny("Llama", attention_dropout=0.5).train())


@pytest.mark.parametrize(
    ("family", "more", "what"),
    [
        ("Cohere", {}, "in layers 0, 1"),
        ("Glm", {"partial_rotary_factor": 0.5}, "in layers 0, 1"),
        ("Helium", {}, "in layers 0, 1"),
        ("Ernie4_5", {}, "in layers 0, 1"),
        ("SmolLM3", {"num_hidden_layers": 5, "no_rope_layers": [1, 1, 1, 1, 0]}, "in layers 4"),
        ("Exaone4", {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}, "in layers 1"),
        ("Gemma3", {"sliding_window": 16}, "also asks for layer_type"),
    ],
)
def test_families_whose_keys_do_not_turn_so_are_refused(family: str, more: dict[str, Any], what: str) -> None:
    model = tiny(family, **more)
    with pytest.raises(ValueError, match=rf"{family}ForCausalLM: .*{what}.*two halves of a head"):
        turn(model)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("Mistral", {}),  # every layer
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 1}),  # the second alone
        ("Exaone4", {"layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_more_places_than_a_sliding_window_shows_are_refused(family: str, more: dict[str, Any]) -> None:
    model, embeds = tiny(family, sliding_window=12, **more), prompt([4, 4]).embeds
    memory = extended(model, embeds[:9], None)
    whole = forward(model, embeds[:12], None, torch.arange(12))[0]
    rest = forward(model, embeds[9:12], memory, torch.arange(9, 12))[0]
    torch.testing.assert_close(rest, whole[9:], atol=1e-5, rtol=1e-4)
    said = rf"{family}ForCausalLM: sliding_window=12, but 4 places are read after 9 .* 13 in all"
    with pytest.raises(ValueError, match=said):
        extended(model, embeds[9:13], memory)
    with pytest.raises(ValueError, match="sliding_window=12"):
        forward(model, embeds[:13], None, torch.arange(13), torch.ones(13, 13).tril().bool())


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("Llama", {}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {"sliding_window": 12}),  # not in use
        ("Exaone4", {"sliding_window": 12, "layer_types": ["full_attention"] * 2}),
    ],
)
def test_a_sliding_window_that_no_layer_has_bounds_nothing(family: str, more: dict[str, Any]) -> None:
    assert len(extended(tiny(family, **more), prompt([4, 4]).embeds, None)) == len(prompt([4, 4]))


@pytest.mark.parametrize("family", ["Qwen3", "Exaone4", "Olmo2", "Gemma3"])
def test_queries_and_keys_that_are_normalised_are_watched_behind_their_norm(family: str) -> None:
    """Four places and four heads: which is which, sizes alone do not tell."""
    more = {"layer_types": ["full_attention"] * 2} if family in ("Exaone4", "Gemma3") else {}
    model, embeds = tiny(family, num_key_value_heads=4, **more), prompt([]).embeds[:4]
    for layer in model.base_model.layers:
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 2)
    nowhere = torch.zeros(4, dtype=torch.long)  # at position 0 nothing is rotated
    with watched(model, "k_proj") as seen:
        keys = forward(model, embeds, None, nowhere)[1].keys
    with watched(model, "q_proj") as queries:
        forward(model, embeds, None, nowhere)
    assert len(seen) == len(queries) == 2 and queries[0].shape == (1, 4, 4 * 8)
    for flat, key in zip(seen, keys, strict=True):
        torch.testing.assert_close(flat.unflatten(2, (4, 8)).transpose(1, 2), key)
