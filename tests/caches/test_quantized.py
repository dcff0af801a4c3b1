"""Memory in a few bits: what a number loses, what a stream costs, and what a question finds again."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.forward import forward
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.caches.packed import Packed
from vxl_lightning.caches.quantized import QuantizedMemory
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.testing.case_cache import HEAD, HIDDEN, language_model, prompt


@parametrize_laws("cache", QuantizedMemory)
def test_law(law: Callable[[], None]) -> None:
    law()


def cache(**params: Any) -> QuantizedMemory:
    return QuantizedMemory(QuantizedMemory.Config(**params), LanguageShape.of(language_model()))


def question(seed: int = 1) -> Tensor:
    return torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(seed))


# --- a few bits ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 11),
    st.integers(1, 5),
    st.sampled_from([2, 4]),
    st.floats(-1e6, 1e6),
    st.floats(1e-20, 1e6),
    st.integers(0, 2**31),
)
def test_a_number_is_off_by_half_a_step_at_most(m: int, d: int, bits: int, at: float, spread: float, seed: int) -> None:
    x = at + spread * torch.randn(2, m, d, generator=torch.Generator().manual_seed(seed))
    packed = Packed.of(x, bits)
    step = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) / (2**bits - 1)
    rounding = 4 * torch.finfo(torch.float32).eps * x.abs().amax()
    assert packed.restored().shape == x.shape
    assert bool(((packed.restored() - x).abs() <= 0.501 * step + rounding).all())


def test_the_ends_of_a_channel_and_what_is_constant_are_kept() -> None:
    x = torch.tensor([[1.0, 5.0, -2.0], [4.0, 5.0, 0.0], [2.0, 5.0, 1.0]])
    assert Packed.of(x, 2).restored().tolist() == [[1.0, 5.0, -2.0], [4.0, 5.0, 0.0], [2.0, 5.0, 1.0]]
    assert Packed.of(torch.tensor([[0.0], [1.4], [1.6], [3.0]]), 2).restored().flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("bits", "m", "rows"), [(4, 6, 3), (4, 7, 4), (2, 8, 2), (2, 9, 3), (2, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_codes_and_two_numbers_a_channel(
    bits: int, m: int, rows: int, dtype: torch.dtype
) -> None:
    packed = Packed.of(torch.randn(2, m, 8).to(dtype), bits)
    assert packed.codes.shape == (2, rows, 8) and packed.codes.dtype == torch.uint8
    assert packed.nbytes == 2 * 8 * (rows + 2 * dtype.itemsize)
    assert packed.restored().dtype == dtype


def test_gradients_pass_through_rounding_as_they_are() -> None:
    x = torch.randn(6, 3, requires_grad=True)
    told = Packed.of(x, 4).restored()
    (told * torch.arange(18.0).view(6, 3)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.arange(18.0).view(6, 3))
    torch.testing.assert_close(told, Packed.of(x.detach(), 4).restored())


# --- recall ----------------------------------------------------------------------------------------------------------


def states(memory: Memory, asked: Tensor) -> Tensor:
    position = torch.arange(memory.position, memory.position + len(asked))
    return forward(language_model(), asked, memory, position)[0]


def test_while_all_is_in_the_window_nothing_is_lost() -> None:
    module, passage, asked = cache(retention=1.0, window=1000, block=2), prompt([4, 2, 5, 4, 1]), question()
    memory = module.recall(language_model(), module.read(language_model(), passage), asked)
    joined = torch.cat([passage.embeds, asked])
    want = forward(language_model(), joined, None, torch.arange(len(joined)))[0][len(passage) :]
    torch.testing.assert_close(states(memory, asked), want, atol=1e-4, rtol=1e-4)


def test_fewer_bits_lose_more() -> None:
    passage, asked = prompt([4] * 8), question()
    told = []
    for bits, window in ((4, 1000), (4, 0), (2, 0)):
        module = cache(retention=1.0, window=window, bits=bits, block=8)
        told.append(states(module.recall(language_model(), module.read(language_model(), passage), asked), asked))
    lost = [float((x - told[0]).norm() / told[0].norm()) for x in told[1:]]
    assert 0 < lost[0] < 0.1 < lost[1] < 0.6


def planted_model() -> Any:
    """One whose queries are its keys, so that like asks for like."""
    model = copy.deepcopy(language_model())
    for layer in model.base_model.layers:
        keys = layer.self_attn.k_proj.weight.view(2, 1, 8, HIDDEN)
        layer.self_attn.q_proj.weight.data = keys.repeat(1, 2, 1, 1).view(32, HIDDEN)
    return model


@pytest.mark.parametrize("asked", [0, 3, 6])
def test_the_stretch_that_a_question_is_about_is_recalled_at_its_new_place(asked: int) -> None:
    model, module, passage = planted_model(), cache(retention=1 / 8, window=12, block=2), prompt([4] * 8)
    about = 3 * question(9)[0]
    here = passage.visual & (passage.stretch == asked)
    embeds = passage.embeds.clone()
    embeds[here] = about + 0.1 * embeds[here]
    memory = module.recall(
        model, module.read(model, Passage(embeds, passage.visual, passage.stretch)), about + 0.1 * question()
    )
    assert len(memory) == memory.position == HEAD + 6
    own = torch.cat([passage.embeds[:HEAD], embeds[passage.stretch == asked]])
    alone = forward(model, own, None, torch.arange(len(own)))[1]
    # In the first layer keys depend on their own place alone: these are what they would be right behind the head.
    gap = (memory.keys[0] - alone.keys[0])[:, :, HEAD:].abs().amax()
    other = (memory.keys[0][:, :, HEAD:].flip(2) - alone.keys[0][:, :, HEAD:]).abs().amax()
    assert float(gap) < 0.1 * float(other)


def test_recalled_stretches_stand_in_the_order_of_time_and_the_most_bounds_them() -> None:
    module, passage = cache(retention=1.0, window=12, block=2, most=20), prompt([4] * 9)
    state = module.read(language_model(), passage)
    memory = module.recall(language_model(), state, question())
    assert len(memory) == module.kv_length(passage) == HEAD + 3 * 6
    values = [g.values if isinstance(g.values, Tensor) else g.values.restored() for g in state.groups]  # type: ignore[attr-defined]
    recalled = memory.values[0][0, :, HEAD:].split(6, 1)
    found = [next(i for i, v in enumerate(values) if torch.equal(v[0], r)) for r in recalled]
    assert found == sorted(found)


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_store_bounds_the_bytes_of_a_stream_and_the_positions_it_reads() -> None:
    model = copy.deepcopy(language_model())
    highest: list[int] = []
    model.base_model.rotary_emb.register_forward_pre_hook(
        lambda _m, args, kwargs: highest.append(int((kwargs.get("position_ids", args[-1])).max())), with_kwargs=True
    )
    module = cache(retention=0.5, window=18, block=2, store=5, most=60)
    state, sizes = module.read(model, prompt([]), last=False), []
    for first in range(0, 60, 3):
        part = prompt([4] * 3, head=0, first=first, seed=first)
        state = module.read(model, part, state, last=first == 57)
        sizes.append(module.nbytes(state))
    memory = module.recall(model, state, question())
    window, packed = 3 * 6 * 2 * 2 * 2 * 8 * 4, 5 * 2 * 2 * 2 * 8 * (3 + 2 * 4)
    means, head = 8 * 2 * 16 * 4, HEAD * 2 * 2 * 2 * 8 * 4
    assert max(sizes) == sizes[-1] == window + packed + means + head
    assert len(memory) == HEAD + 8 * 6
    assert len(memory) == module.kv_length(Passage.joined([prompt([]), *(prompt([4], 0, first=i) for i in range(60))]))
    assert max(highest) < HEAD + max(18 + 2 * 6, 60) + 3, "head and window and block, or head, recall and question"


def test_what_repeats_is_what_a_full_store_forgets() -> None:
    passage = prompt([4] * 8, text=0)
    embeds = passage.embeds.clone()
    embeds[passage.stretch == 3] = embeds[passage.stretch == 2]
    module = cache(window=0, block=1, store=7)
    state = module.read(language_model(), Passage(embeds, passage.visual, passage.stretch))
    assert isinstance(state.memory, Memory) and len(state.groups) == 7  # type: ignore[attr-defined]
    keys = language_model().base_model.layers[0]
    kept = torch.stack([g.mean[0] for g in state.groups])  # type: ignore[attr-defined]
    own = keys.self_attn.k_proj(keys.input_layernorm(embeds[HEAD:])).view(8, 4, 16).mean(1)
    torch.testing.assert_close(kept, own[[0, 1, 2, 4, 5, 6, 7]])


@pytest.mark.parametrize("store", [1, 2, 9])
def test_a_full_store_forgets_what_all_similarities_anew_say_and_computes_few(
    store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    similarity = torch.nn.functional.cosine_similarity

    def counted(a: Tensor, b: Tensor, dim: int) -> Tensor:
        nonlocal compared
        compared += 1 if a.ndim == 1 else len(a)
        return similarity(a, b, dim=dim)

    monkeypatch.setattr(torch.nn.functional, "cosine_similarity", counted)
    passage = prompt([4] * 40)
    everything = cache(window=0, block=1).read(language_model(), passage)
    means = [g.mean.flatten() for g in everything.groups]  # type: ignore[attr-defined]
    assert compared == 0, "without a store nothing is compared"
    state = cache(window=0, block=1, store=store).read(language_model(), passage)
    assert compared <= 2 * 40, "with its own and, when one goes, with another neighbour"
    left: list[Tensor] = []
    for mean in means:
        left.append(mean)
        if len(left) > store:
            alike = [float(similarity(a, b, dim=0).round(decimals=5)) for a, b in pairwise(left)]
            del left[1 + alike.index(max(alike))]
    kept = [g.mean.flatten() for g in state.groups]  # type: ignore[attr-defined]
    assert len(kept) == store and all(torch.equal(a, b) for a, b in zip(kept, left, strict=True))


def test_what_is_in_the_window_is_as_it_was_computed() -> None:
    module = cache(window=13, block=2)
    state = module.read(language_model(), prompt([4] * 6))
    raw = [isinstance(g.keys, Tensor) for g in state.groups]  # type: ignore[attr-defined]
    assert raw == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("counts", "params", "expected"),
    [
        ([4] * 8, {"retention": 0.25}, 12),  # two stretches of six
        ([4] * 8, {"retention": 0.01}, 6),  # never none
        ([4] * 8, {"retention": 1.0, "most": 23}, 18),
        ([4, 1, 7, 4], {"retention": 0.5}, 9 + 6),  # the two largest
        ([4, 1, 7, 4], {"retention": 1.0, "most": 20}, 9 + 6),  # as if all were as large as the largest
        ([4] * 9, {"retention": 1.0, "store": 2, "window": 13}, 24),  # two in the store and two in the window
        ([], {}, 0),
    ],
)
def test_the_budget_in_figures(counts: list[int], params: dict[str, Any], expected: int) -> None:
    module, passage = cache(**params), prompt(counts)
    memory = module.recall(language_model(), module.read(language_model(), passage), question())
    assert len(memory) <= module.kv_length(passage) == HEAD + expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bits": 3}, "bits=3 is not 2 or 4"),
        ({"window": -1}, "window=-1 must be at least 0"),
        ({"most": 0}, "most=0 must be at least 1"),
        ({"retention": 0.0}, r"retention=0\.0 is not in \(0, 1\]"),
    ],
)
def test_what_cannot_be_met_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizedMemory.Config(**params)
