"""Visual summarisation tokens: against a language model written out by hand, window by window."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.full import FullCache
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.caches.vst import VisualSummarization, depths, most
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.testing.case_cache import HEAD, HIDDEN, language_model, prompt


@parametrize_laws("cache", VisualSummarization)
def test_law(law: Callable[[], None]) -> None:
    law()


def cache(**params: Any) -> VisualSummarization:
    """One whose own weights are unlike the language model's."""
    torch.manual_seed(3)
    made = VisualSummarization(VisualSummarization.Config(**params), LanguageShape.of(language_model()))
    if made.trainable:
        made.token.data.normal_()
    return made.eval()


def read(module: VisualSummarization, passage: Passage, model: Any = None) -> Memory:
    model = model or language_model()
    with torch.no_grad():
        return module.recall(model, module.read(model, passage))


# --- a language model by hand: one attention at a time, keys kept unrotated ------------------------------------------


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """``[heads, n, 8]`` rotated to where it stands."""
    angle = position[:, None] / 10000 ** (torch.arange(4) / 4)
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :4], x[..., 4:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def by_hand(module: VisualSummarization, passage: Passage, ratio: int, window: int) -> list[list[Tensor]]:
    """Unrotated keys and values, ``[heads, kept, 8]`` a layer, that windows of ``window`` stretches leave."""
    layers = language_model().base_model.layers
    old: list[list[Tensor]] = [[torch.empty(2, 0, 8)] * 2 for _ in layers]
    for numbers in [{-1}, *({n, n + 1} if window == 2 else {n} for n in range(0, 8, window))]:
        rows, summary, seen = [], [], 0
        here = [i for i in range(len(passage)) if int(passage.stretch[i]) in numbers]
        last = max([i for i in here if passage.visual[i]], default=-1)
        for i in here:
            rows.append(passage.embeds[i])
            summary.append(False)
            seen += int(passage.visual[i])
            if passage.visual[i] and (seen % ratio == 0 or i == last):
                rows.append(module.token.detach())
                summary.append(True)
        if not rows:
            continue
        x, own = torch.stack(rows), torch.tensor(summary)
        stays = own.clone()
        stays[~own] = torch.tensor([not bool(passage.visual[i]) for i in here])
        m, n = old[0][0].shape[1], len(x)
        position = torch.arange(m + n)  # what was kept comes first, closed up
        new = []
        for i, layer in enumerate(layers):
            norm = layer.input_layernorm(x)
            projected = {}
            for name in "qkv":
                projected[name] = getattr(layer.self_attn, f"{name}_proj")(norm)
                if name in module.projections[i]:  # type: ignore[operator]
                    projected[name][own] = module.projections[i][name](norm[own]).detach()  # type: ignore[index]
            q, k, v = (projected[name].view(n, -1, 8).transpose(0, 1) for name in "qkv")
            new.append([k[:, stays], v[:, stays]])
            keys, values = torch.cat([old[i][0], k], 1), torch.cat([old[i][1], v], 1)
            keys = rotated(keys, position).repeat_interleave(2, 0)
            scores = rotated(q, position[m:]) @ keys.transpose(1, 2) / 8**0.5
            scores = scores.masked_fill(position[m:, None] < position[None], float("-inf"))
            told = (scores.softmax(-1) @ values.repeat_interleave(2, 0)).transpose(0, 1).reshape(n, -1)
            x = x + layer.self_attn.o_proj(told)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        old = [[torch.cat([a, b], 1) for a, b in zip(o, w, strict=True)] for o, w in zip(old, new, strict=True)]
    return old


@pytest.mark.parametrize(("ratio", "window"), [(2, 1), (4, 2), (3, 2)])
def test_what_stays_is_what_a_model_written_out_by_hand_keeps_at_consecutive_positions(ratio: int, window: int) -> None:
    module, passage = cache(retention=1 / ratio, window=window), prompt([4, 3, 4, 5, 1, 4])
    memory = read(module, passage)
    want = by_hand(module, passage, ratio, window)
    assert memory.position == len(memory) == want[0][0].shape[1]
    for i, (k, v) in enumerate(want):
        torch.testing.assert_close(memory.keys[i][0], rotated(k, torch.arange(len(memory))), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(memory.values[i][0], v, atol=1e-4, rtol=1e-4)


def test_at_ratio_one_keys_and_values_are_those_of_plain_causal_attention() -> None:
    passage, shape = prompt([4] * 6), LanguageShape.of(language_model())
    full = FullCache(FullCache.Config(), shape)
    memory = read(cache(retention=1.0, window=2), passage)
    plain = full.recall(language_model(), full.read(language_model(), passage))
    assert memory.position == plain.position
    for a, b in zip(memory.keys + memory.values, plain.keys + plain.values, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_own_projections_are_used_at_the_summary_places_alone() -> None:
    module, passage = cache(retention=0.25, window=2), prompt([4, 4])
    before = read(module, passage)
    text = (~passage.visual).nonzero()[:, 0]
    kept_text = torch.tensor([*range(HEAD), HEAD, HEAD + 1, HEAD + 3, HEAD + 4])  # a summary token after each four
    summary = torch.tensor([HEAD + 2, HEAD + 5])
    assert len(before) == len(text) + 2
    for projections in module.projections:
        projections["v"].weight.data.add_(0.5)  # type: ignore[index, operator]
    after = read(module, passage)
    assert torch.equal(before.values[0][:, :, kept_text], after.values[0][:, :, kept_text])
    assert not torch.isclose(before.values[0][:, :, summary], after.values[0][:, :, summary]).any()
    plain = language_model().base_model.layers[0]
    want = plain.self_attn.v_proj(plain.input_layernorm(passage.embeds[text])).view(-1, 2, 8).transpose(0, 1)
    torch.testing.assert_close(after.values[0][0][:, kept_text], want)


def test_it_starts_as_the_language_model_reading_its_mean_embedding() -> None:
    module, model = cache(retention=0.25), language_model()
    module.start_from(model)
    layer = model.base_model.layers[0]
    assert torch.equal(module.projections[0]["k"].weight, layer.self_attn.k_proj.weight)  # type: ignore[index]
    torch.testing.assert_close(module.token.data, model.get_input_embeddings().weight.mean(0))
    assert "q" not in module.projections[1], "what it would ask for in the last layer, nothing reads"  # type: ignore[operator]


def test_it_starts_from_the_layers_under_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(copy.deepcopy(language_model()), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    plain, wrapped = cache(retention=0.5), cache(retention=0.5)
    plain.start_from(language_model())
    wrapped.start_from(adapted.get_base_model())
    for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(a, b)
    memory = read(wrapped, prompt([4, 4]), adapted.get_base_model())  # an adapter begins as no change
    torch.testing.assert_close(memory.keys[1], read(plain, prompt([4, 4])).keys[1])


def lora(**more: Any) -> Any:
    """A language model under an adapter that was trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **more)
    model = get_peft_model(copy.deepcopy(language_model()), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_it_starts_from_what_a_trained_adapter_makes_of_the_layers() -> None:
    adapted = lora()
    module, want = cache(retention=0.5), cache(retention=0.5)
    module.start_from(adapted.get_base_model())
    want.start_from(copy.deepcopy(adapted).merge_and_unload())
    plain = cache(retention=0.5)
    plain.start_from(language_model())
    for (name, a), b, c in zip(module.named_parameters(), want.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(b, c) != (".q." in name or ".v." in name)
    with adapted.disable_adapter():
        module.start_from(adapted.get_base_model())
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    adapted.merge_adapter()
    module.start_from(adapted.get_base_model())
    for a, b in zip(module.parameters(), want.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("more", [{"use_dora": True}, {"lora_bias": True}])
def test_an_adapter_that_adds_otherwise_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the adapter 'default' adds other than a plain LoRA.*merge_and_unload"):
        cache(retention=0.5).start_from(lora(**more).get_base_model())


def test_a_language_model_in_bfloat16_is_read_with_weights_in_float32() -> None:
    module, passage = cache(retention=0.5, window=2), prompt([4, 4])
    half = Passage(passage.embeds.bfloat16(), passage.visual, passage.stretch)
    memory = read(module, half, language_model(torch.bfloat16))
    assert memory.keys[0].dtype == torch.bfloat16
    whole = read(module, passage)
    assert float((memory.values[0].float() - whole.values[0]).norm() / whole.values[0].norm()) < 0.02


def test_what_inserts_nothing_has_nothing_to_train() -> None:
    module = VisualSummarization(VisualSummarization.Config(retention=1.0), LanguageShape.of(language_model()))
    assert not module.trainable and not list(module.parameters()) and VisualSummarization.trainable
    module.start_from(language_model())
    trained = torch.nn.ModuleDict({"cache": cache(retention=0.25)}).state_dict()
    torch.nn.ModuleDict({"cache": module}).load_state_dict(trained)  # of which it needs no weight
    drawing = cache(retention=1.0, ratios=[2])
    assert drawing.trainable and list(drawing.parameters())
    with pytest.raises(RuntimeError, match="token"):
        drawing.load_state_dict(module.state_dict())


# --- dynamic windows -------------------------------------------------------------------------------------------------


def scenes(*lengths: int, noise: float = 0.01) -> Passage:
    """A prompt whose stretches look alike within a scene."""
    passage = prompt([4] * sum(lengths))
    looks = torch.eye(HIDDEN)[: len(lengths)].repeat_interleave(torch.tensor(lengths), 0)
    embeds = passage.embeds.clone()
    embeds[passage.visual] = looks[passage.stretch[passage.visual]] + noise * embeds[passage.visual]
    return Passage(embeds, passage.visual, passage.stretch)


def stretch_sizes(module: VisualSummarization, passage: Passage) -> list[int]:
    """Stretches of every window after the head."""
    found = module.ends(passage, last=True)
    return [(b - a) // 6 for a, b in pairwise(found)]


def test_dynamic_windows_end_where_the_scene_changes() -> None:
    module = cache(retention=0.5, windows="dynamic", least=2, window=5)
    assert stretch_sizes(module, scenes(3, 4, 2, 5)) == [3, 4, 2, 5]
    assert stretch_sizes(module, scenes(1, 12, noise=0)) == [2, 2, 2, 2, 5], (
        "no shorter than least, and the earliest of equals"
    )
    assert stretch_sizes(cache(retention=0.5, window=5), scenes(3, 4, 2, 5)) == [5, 5, 4]


def test_a_stretch_that_is_still_coming_decides_nothing() -> None:
    module, passage = cache(retention=0.5, windows="dynamic", least=2, window=5), scenes(3, 4, 2, 5)
    whole = module.ends(passage, last=True)
    for cut in range(1, len(passage)):
        so_far = module.ends(passage.part(0, cut), last=False)
        assert so_far == whole[: len(so_far)]
    assert so_far == whole[:-1], "a window is read as soon as what it may hold is there"


def test_depths_lie_below_the_peaks_on_both_sides() -> None:
    similarity = torch.tensor([0.9, 0.2, 0.8, 0.5, 0.7])
    assert depths(similarity).tolist() == pytest.approx([0.0, 0.7 + 0.6, 0.1, 0.4 + 0.2, 0.2])


@pytest.mark.parametrize(
    ("visual", "expected"),
    [([4] * 8, 8), ([1] * 4, 1), ([1] * 5, 2), ([1] * 8, 3), ([], 0)],
)
def test_the_announced_most_of_dynamic_windows(visual: list[int], expected: int) -> None:
    assert most(visual, least=2, longest=4, ratio=4) == expected


# --- training --------------------------------------------------------------------------------------------------------


def drawn(module: VisualSummarization, prompts: int) -> list[int]:
    return [module.read(language_model(), prompt([8])).memory.position - HEAD - 2 for _ in range(prompts)]  # type: ignore[union-attr]


def test_ratios_are_drawn_in_training_alone_and_go_on_after_a_checkpoint() -> None:
    module = cache(retention=1 / 8, ratios=[2, 4, 8], seed=5)
    assert drawn(module, 4) == [1] * 4, "evaluation reads at its retention"
    module.train()
    first = drawn(module, 6)
    saved = copy.deepcopy(module.state_dict())
    rest = drawn(module, 6)
    assert set(first + rest) == {4, 2, 1}
    resumed = cache(retention=1 / 8, ratios=[2, 4, 8], seed=5).train()
    resumed.load_state_dict(saved)
    assert drawn(resumed, 6) == rest
    assert drawn(cache(retention=1 / 8, ratios=[2, 4, 8], seed=6).train(), 12) != first + rest


def test_all_parts_of_a_prompt_share_one_draw() -> None:
    module, passage = cache(retention=1 / 8, window=1, ratios=[2, 4, 8]).train(), prompt([8] * 6)
    state = None
    for begin in range(0, len(passage), 7):
        state = module.read(language_model(), passage.part(begin, begin + 7), state, last=begin + 7 >= len(passage))
    assert int(module.drawn) == 1
    assert state is not None and state.memory is not None
    assert (len(state.memory) - HEAD - 12) in {6 * 4, 6 * 2, 6}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"retention": 0.3}, r"retention=0\.3.*0\.25 and 0\.333333"),
        ({"window": 0}, "window=0 must be at least 1"),
        ({"windows": "dynamic", "window": 3, "least": 4}, "least=4 and window=3"),
        ({"windows": "any"}, "'any' is not one of fixed, dynamic"),
        ({"ratios": [1]}, r"ratios=\[1\]: each must be at least 2"),
    ],
)
def test_what_cannot_be_met_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisualSummarization.Config(**params)
