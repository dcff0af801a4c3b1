"""Presses as cache compressors: what the adapter makes of any press, with presses made here, and what it refuses."""

import copy
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from vxl_kvpress import PressedCache
from vxl_kvpress.choice import REFUSED

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.full import FullCache
from vxl_lightning.caches.memory import Passage
from vxl_lightning.errors import UserError
from vxl_lightning.testing import parametrize_laws

from .presses_made_here import HIDDEN, built, language_model, prompt, remembered, same, whole


class Drawn(PressedCache):
    """With presses made here whose choice no rounding turns."""

    known_exceptions: ClassVar[dict[str, str]] = {}

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"press": "AnyPress"}, {"press": "AroundPress", "parameters": {"press": "AnyPress"}, "retention": 0.5}]


@parametrize_laws("cache", Drawn)
def test_law(law: Callable[[], None], made_here: None) -> None:
    law()


def test_what_a_press_keeps_is_remembered_with_keys_where_they_were_read(made_here: None) -> None:
    model, passage = language_model(), prompt(23)
    memory, everything = remembered(built(model, retention=0.3), model, passage), whole(model, passage)
    assert memory.position == 23
    for layer in range(3):
        longest = everything.values[layer].norm(dim=-1).argsort(descending=True)[..., :6]
        keep = longest[..., None].expand(-1, -1, -1, HIDDEN // 4)
        assert torch.equal(memory.keys[layer], everything.keys[layer].gather(2, keep))
        assert torch.equal(memory.values[layer], everything.values[layer].gather(2, keep))


@pytest.mark.parametrize(("n", "retention", "length"), [(23, 0.3, 6), (40, 0.25, 10), (5, 0.1, 1), (9, 1, 9)])
def test_text_counts_among_what_is_kept_and_one_key_stays_at_the_least(
    made_here: None, n: int, retention: float, length: int
) -> None:
    model, passage = language_model(), prompt(n)
    cache = built(model, retention=retention)
    assert cache.kv_length(passage) == length == len(remembered(cache, model, passage))


def test_a_prompt_that_shows_nothing_is_kept_whole(made_here: None) -> None:
    model, passage = language_model(), prompt(7, head=7)
    cache = built(model)
    assert not passage.visual.any()
    assert cache.kv_length(passage) == 7
    assert same(remembered(cache, model, passage), whole(model, passage))


@pytest.mark.parametrize(
    ("press", "n_sink"), [("LongestPress", 9), ("AroundPress", {"name": "LongestPress", "n_sink": 9})]
)
def test_so_is_one_no_longer_than_what_the_press_holds_in_any_case(made_here: None, press: str, n_sink: Any) -> None:
    model = language_model()
    cache = built(model, press, parameters={"n_sink": n_sink} if press == "LongestPress" else {"press": n_sink})
    assert [cache.kv_length(prompt(n)) for n in (8, 9, 10)] == [8, 9, 2]
    assert same(remembered(cache, model, prompt(9)), whole(model, prompt(9)))
    with pytest.warns(UserWarning, match=r"fewer keys stay than its window or its sinks take \(9\)"):
        assert len(remembered(cache, model, prompt(10))) == 2


def test_with_retention_1_nothing_is_lost(made_here: None) -> None:
    model, passage = language_model(), prompt(23)
    full = FullCache(FullCache.Config(), LanguageShape.of(model))
    assert same(remembered(built(model, retention=1), model, passage), full.recall(model, full.read(model, passage)))


@pytest.mark.parametrize("cuts", [[0], [1, 2], [8, 8, 17], [23]])
def test_parts_wait_for_the_last_and_are_read_as_one(made_here: None, cuts: list[int]) -> None:
    model, passage = language_model(), prompt(23)
    cache, state, begin = built(model), None, 0
    for end in cuts:
        state = cache.read(model, passage.part(begin, end), state, last=False)
        assert state.memory is None
        assert cache.nbytes(state) == end * HIDDEN * 4
        begin = end
    state = cache.read(model, passage.part(begin, 23), state)
    assert cache.nbytes(state) == 3 * 2 * cache.kv_length(passage) * HIDDEN // 2 * 4
    assert same(cache.recall(model, state), remembered(cache, model, passage))


@pytest.mark.parametrize("press", ["LongestPress", "UnevenPress", "MaskingPress"])
def test_the_model_is_left_as_it_was_also_by_a_press_that_fails(made_here: None, press: str) -> None:
    model, passage = language_model(), prompt(23)
    names, before = [name for name, _ in model.named_modules()], whole(model, passage)
    cache = built(model, press)
    if press == "LongestPress":
        cache.read(model, passage)
    else:
        with pytest.raises(ValueError, match=press):
            cache.read(model, passage)
    assert [name for name, _ in model.named_modules()] == names
    assert not any(m._forward_hooks or hasattr(m, "masked_key_indices") for m in model.modules())
    assert same(whole(model, passage), before)
    assert "forward_hook" not in vars(cache.press)
    assert same(remembered(copy.deepcopy(built(model)), model, passage), remembered(built(model), model, passage))


def test_a_press_that_leaves_another_number_than_announced_is_told_of(made_here: None) -> None:
    model = language_model()
    with pytest.raises(ValueError, match=r"left \[2, 3, 4\] of 23 keys where 5 were announced"):
        built(model, "UnevenPress").read(model, prompt(23))


def test_what_a_press_says_of_a_short_prompt_reaches_the_user(made_here: None) -> None:
    model = language_model()
    cache = built(model, parameters={"least": 30})
    with pytest.raises(ValueError, match=r"'least': 30.*23 places: Input should contain more tokens than least=30"):
        cache.read(model, prompt(23))


def test_draws_are_a_function_of_the_seed_and_disturb_no_other(made_here: None) -> None:
    model, passage = language_model(), prompt(23)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = remembered(built(model, "AnyPress"), model, passage)
    assert torch.equal(torch.rand(3), expected)
    assert same(remembered(built(model, "AnyPress"), model, passage), first)
    assert not same(remembered(built(model, "AnyPress", seed=1), model, passage), first)


def test_the_answers_gradient_reaches_what_was_read(made_here: None) -> None:
    model, passage = language_model(), prompt(23)
    read = Passage(passage.embeds.requires_grad_(), passage.visual, passage.stretch)
    memory = remembered(built(model), model, read)
    torch.stack(memory.keys).square().sum().backward()
    assert passage.embeds.grad is not None and bool(passage.embeds.grad.any())


def test_a_press_may_stand_around_another(made_here: None) -> None:
    model, passage = language_model(), prompt(23)
    alone = remembered(built(model), model, passage)
    for inner in ("LongestPress", {"name": "LongestPress", "least": 2}):
        assert same(remembered(built(model, "AroundPress", parameters={"press": inner}), model, passage), alone)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_a_press_that_cannot_be_announced_is_refused_by_name_without_kvpress(name: str) -> None:
    with pytest.raises(UserError, match=f"press={name} cannot be used here: ") as caught:
        PressedCache.Config(press=name)
    assert REFUSED[name] in str(caught.value)


def test_without_kvpress_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kvpress", None)
    with pytest.raises(UserError, match=r"needs kvpress.*pip install --no-deps kvpress"):
        built(language_model(), "KnormPress")


@pytest.mark.parametrize(
    ("press", "parameters", "said"),
    [
        (
            "LongstPress",
            {},
            r"press='LongstPress' is not in kvpress \(did you mean 'LongestPress'\?\); usable: AnyPress",
        ),
        ("PRESSES", {}, "is not in kvpress"),
        ("LongestPress", {"lest": 2}, r"unknown parameters.lest \(did you mean 'least'\?\); allowed: least, n_sink"),
        ("LongestPress", {"compression_ratio": 0.5}, "set retention"),
        ("AroundPress", {}, "press=AroundPress with parameters={}: .*missing"),
        ("AroundPress", {"press": {"least": 2}}, "parameters.press.name is missing"),
        ("AroundPress", {"press": "AdaKVPress"}, "press=AdaKVPress cannot be used here"),
    ],
)
def test_what_cannot_be_built_is_named(made_here: None, press: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        built(language_model(), press, parameters=parameters)
