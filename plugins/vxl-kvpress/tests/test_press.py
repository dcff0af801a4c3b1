"""Presses as cache compressors: the adapter with presses made here, and with those of kvpress where it is installed."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from vxl_kvpress import PressedCache
from vxl_kvpress.choice import REFUSED, library

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.forward import forward, turned
from vxl_lightning.caches.full import FullCache
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.errors import UserError
from vxl_lightning.testing import parametrize_laws

HIDDEN = 32


# --- presses made here, with what the adapter relies on of kvpress's -------------------------------------------------


@dataclass
class BasePress:
    """Listens to every attention as kvpress does, and asks of its arguments what kvpress asks."""

    compression_ratio = 0.0

    def forward_hook(self, module: Any, given: Any, kwargs: dict[str, Any], output: Any) -> Any:
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        assert int(kwargs["cache_position"][-1]) + 1 == kwargs["hidden_states"].shape[1]
        if self.compression_ratio == 0:
            return output
        keep = self.keep(module, layer.values)[..., None].expand(-1, -1, -1, module.head_dim)
        layer.keys, layer.values = layer.keys.gather(2, keep), layer.values.gather(2, keep)
        return output

    def keep(self, module: Any, values: Tensor) -> Tensor:
        raise NotImplementedError

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        hooks = []
        try:
            for layer in model.model.layers:
                layer.self_attn.rotary_emb = model.model.rotary_emb
                hooks.append(layer.self_attn.register_forward_hook(self.forward_hook, with_kwargs=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass
class LongestPress(BasePress):
    """Keeps the longest values of every head."""

    compression_ratio: float = 0.0
    least: int = 0
    n_sink: int = 0

    def keep(self, module: Any, values: Tensor) -> Tensor:
        n = values.shape[2]
        assert n > self.least, f"Input should contain more tokens than least={self.least}"
        count = max(1, int(n * (1 - self.compression_ratio)))
        return torch.topk(values.norm(dim=-1), count).indices


@dataclass
class AnyPress(LongestPress):
    """Keeps what a draw says."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return super().keep(module, torch.rand(*values.shape[:3], 1))


@dataclass
class UnevenPress(LongestPress):
    """Keeps one more in every layer than in the one before."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return torch.topk(values.norm(dim=-1), 2 + module.layer_idx).indices


@dataclass
class MaskingPress(LongestPress):
    """Keeps all, and leaves marks in the model for what is not to be attended to."""

    def keep(self, module: Any, values: Tensor) -> Tensor:
        module.masked_key_indices = (torch.tensor([0]),) * 3
        return super().keep(module, values)


@dataclass
class AroundPress(BasePress):
    """Around another press, which it lets decide."""

    press: LongestPress

    @property
    def compression_ratio(self) -> float:
        return self.press.compression_ratio

    @compression_ratio.setter
    def compression_ratio(self, value: float) -> None:
        self.press.compression_ratio = value

    def keep(self, module: Any, values: Tensor) -> Tensor:
        return self.press.keep(module, values)


PRESSES = (BasePress, LongestPress, AnyPress, UnevenPress, MaskingPress, AroundPress)


@pytest.fixture
def made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The presses above stand in for kvpress."""
    module = ModuleType("kvpress")
    for press in PRESSES:
        setattr(module, press.__name__, press)
    monkeypatch.setitem(sys.modules, "kvpress", module)


@pytest.fixture
def kvpress() -> Any:
    try:
        return library()
    except UserError as error:
        pytest.skip(str(error))


# --- what is read ----------------------------------------------------------------------------------------------------


def language_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def prompt(n: int, head: int = 3, seed: int = 0) -> Passage:
    """A chat's head, then stretches of one place of time text and four visual ones."""
    place = torch.arange(n) - head
    stretch = place.clamp(min=-5).div(5, rounding_mode="floor")
    embeds = torch.randn(n, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return Passage(embeds, (place >= 0) & (place % 5 > 0), stretch)


def built(model: Any, press: str = "LongestPress", **config: Any) -> PressedCache:
    return PressedCache(PressedCache.Config(press=press, **config), LanguageShape.of(model))


def remembered(cache: PressedCache, model: Any, passage: Passage) -> Memory:
    return cache.recall(model, cache.read(model, passage))


def whole(model: Any, passage: Passage) -> Memory:
    return forward(model, passage.embeds, None, torch.arange(len(passage)))[1]


def same(a: Memory, b: Memory) -> bool:
    pairs = zip((*a.keys, *a.values), (*b.keys, *b.values), strict=True)
    return a.position == b.position and all(torch.equal(x, y) for x, y in pairs)


# --- the adapter -----------------------------------------------------------------------------------------------------


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


# --- kvpress itself --------------------------------------------------------------------------------------------------

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
