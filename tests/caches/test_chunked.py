"""Blocks that read the recent past, and two levels of detail chosen by the question."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.caches.chunked import ChunkedPrefill
from vxl_lightning.caches.forward import forward, turned
from vxl_lightning.caches.full import FullCache
from vxl_lightning.caches.memory import Memory, Passage
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.testing.case_cache import HEAD, HIDDEN, language_model, prompt


@parametrize_laws("cache", ChunkedPrefill)
def test_law(law: Callable[[], None]) -> None:
    law()


def cache(**params: Any) -> ChunkedPrefill:
    return ChunkedPrefill(ChunkedPrefill.Config(**params), LanguageShape.of(language_model()))


def prefilled(module: Any, passage: Passage) -> Memory:
    memory = module.read(language_model(), passage).memory
    assert isinstance(memory, Memory)
    return memory


def question(seed: int = 1) -> Tensor:
    return torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(seed))


def changed(passage: Passage, place: int) -> Passage:
    embeds = passage.embeds.clone()
    embeds[place] += 1
    return Passage(embeds, passage.visual, passage.stretch)


# --- prefill ---------------------------------------------------------------------------------------------------------


def test_with_every_block_visible_it_is_the_full_prefill() -> None:
    passage = prompt([4] * 7)
    plain = prefilled(FullCache(FullCache.Config(), LanguageShape.of(language_model())), passage)
    for memory in (
        prefilled(cache(block=2, previous=-1), passage),
        prefilled(cache(block=2, previous=3), passage),
    ):
        assert memory.position == plain.position == len(passage)
        for a, b in zip(memory.keys + memory.values, plain.keys + plain.values, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_block_reads_the_blocks_just_before_it_and_all_text() -> None:
    module, passage = cache(block=2, previous=1), prompt([4] * 8)
    before = prefilled(module, passage)
    block = passage.stretch // 2

    def differ(place: int, among: Tensor = passage.visual) -> set[int]:
        """Blocks of which keys in the second layer are others, where the token at a place is another."""
        other = prefilled(module, changed(passage, place))
        there = (before.keys[1] != other.keys[1]).any(-1).any(1)[0]
        assert not there[:place].any(), "nothing sees what comes after it"
        return set(block[there & among].tolist())

    visual = int(passage.visual.nonzero()[0])
    assert visual == HEAD + 2 and differ(visual) == {0, 1}, "two blocks on, a visual token is seen by no visual one"
    assert differ(visual, ~passage.visual) == {0, 1, 2, 3}, "but time text sees all that came before it"
    assert differ(HEAD) == {0, 1, 2, 3}, "time text is seen by all that follows"
    assert differ(0) == {0, 1, 2, 3} and differ(0, ~passage.visual) == {-1, 0, 1, 2, 3}, "and so is the head"
    later = int((passage.stretch == 4).nonzero()[3])
    assert differ(later) == {2, 3}


@pytest.mark.parametrize(("block", "previous", "counts"), [(2, 1, [4] * 7), (1, 0, [3, 0, 5, 1]), (3, 2, [2] * 11)])
def test_the_prefill_is_one_pass_under_the_mask_of_the_blocks(block: int, previous: int, counts: list[int]) -> None:
    passage = prompt(counts)
    number, n = passage.stretch // block, len(passage)
    sees = torch.ones(n, n).tril().bool()
    near = ~passage.visual | (number >= number[:, None] - previous)
    sees[passage.visual] &= near[passage.visual]
    assert not sees.equal(torch.ones(n, n).tril().bool())
    whole = forward(language_model(), passage.embeds, None, torch.arange(n), sees)[1]
    memory = prefilled(cache(block=block, previous=previous), passage)
    for a, b in zip(memory.keys + memory.values, whole.keys + whole.values, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


# --- two levels ------------------------------------------------------------------------------------------------------


def by_hand(
    model: Any, memory: Memory, passage: Passage, chunk: int, full: set[int], pool: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values place by place: text and full chunks as they are, others as means of ``pool`` tokens in a row;
    keys without their rotation, and then rotated to their place."""
    places: list[list[int]] = []
    open_run: list[int] | None = None
    run_of = None
    for i in range(len(passage)):
        number = int(passage.stretch[i]) // chunk
        if not passage.visual[i] or number in full:
            places.append([i])
            continue
        if open_run is None or run_of != number or len(open_run) == pool:
            open_run, run_of = [], number
            places.append(open_run)
        open_run.append(i)
    bare = turned(model, memory.keys, -torch.arange(len(passage)))
    keys, values = (
        [torch.stack([x[0, :, p].mean(1) for p in places], 1)[None] for x in part] for part in (bare, memory.values)
    )
    return turned(model, keys, torch.arange(len(places))), values


def levels(module: ChunkedPrefill, passage: Passage, query: Tensor, model: Any = None) -> set[int]:
    """Which chunks are recalled in full, told by the recalled values; the others must be means."""
    model = model or language_model()
    state = module.read(model, passage)
    recalled, memory = module.recall(model, state, query), state.memory
    assert memory is not None and recalled.position == len(recalled) < len(passage)
    config = module.config
    chunk = passage.stretch // config.chunk
    full = set()
    for number in range(int(chunk.max()) + 1):
        places = ((chunk == number) & passage.visual).nonzero()[:, 0]
        own = memory.values[0][:, :, places[-1:]]
        if bool((recalled.values[0] == own).all(-1).all(1).any()):
            full.add(number)
    keys, values = by_hand(model, memory, passage, config.chunk, full, config.pool)
    for got, want in zip(recalled.keys + recalled.values, keys + values, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    return full


@pytest.mark.parametrize(("chunk", "pool", "retention"), [(1, 4, 0.6), (2, 3, 0.8), (2, 5, 0.7)])
def test_the_first_and_last_chunk_are_full_and_others_means(chunk: int, pool: int, retention: float) -> None:
    module = cache(block=2, previous=1, chunk=chunk, pool=pool, retention=retention)
    passage = prompt([4] * 10)
    count = 10 // chunk
    for seed in (1, 2):
        full = levels(module, passage, question(seed))
        assert {0, count - 1} <= full and len(full) < count
    assert module.kv_length(passage) == len(
        module.recall(language_model(), module.read(language_model(), passage), question())
    )


def test_like_neighbours_leave_the_key_that_they_have_at_the_place_they_leave() -> None:
    """Not the mean of what their rotations made of it, which points nowhere."""
    passage, module = prompt([4] * 5), cache(block=2, previous=1, chunk=1, retention=0.55)
    one = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3))
    embeds = passage.embeds.clone()
    embeds[passage.visual] = one
    model = language_model()
    recalled = module.recall(model, module.read(model, Passage(embeds, passage.visual, passage.stretch)), question())
    # The head, 2 of time text and 4 of the first stretch; then 2 of time text and one token each, but for the last.
    assert recalled.position == len(recalled) == HEAD + 6 + 3 + 3 + 3 + 6
    for place in (HEAD + 8, HEAD + 11, HEAD + 14):
        there = forward(model, one[None], None, torch.tensor([place]))[1]
        torch.testing.assert_close(recalled.keys[0][:, :, [place]], there.keys[0], atol=1e-5, rtol=1e-4)


def planted_model() -> Any:
    """One whose queries are its keys, so that like asks for like."""
    model = copy.deepcopy(language_model())
    for layer in model.base_model.layers:
        keys = layer.self_attn.k_proj.weight.view(2, 1, 8, HIDDEN)
        layer.self_attn.q_proj.weight.data = keys.repeat(1, 2, 1, 1).view(32, HIDDEN)
    return model


@pytest.mark.parametrize("asked", [3, 5])
def test_the_chunk_that_a_question_is_about_is_recalled_in_full(asked: int) -> None:
    module, passage = cache(block=2, previous=1, chunk=1, pool=4, retention=0.55), prompt([4] * 8)
    about = 3 * question(9)[0]
    here = passage.visual & (passage.stretch == asked)
    embeds = passage.embeds.clone()
    embeds[here] = about + 0.1 * embeds[here]
    planted = Passage(embeds, passage.visual, passage.stretch)
    assert levels(module, planted, about + 0.1 * question(), planted_model()) == {0, 7, asked}


# --- budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "retention", "visual"),
    [
        ([8] * 4, 0.25, 8),  # all pooled: 4 x 2
        ([8] * 4, 0.44, 14),  # the first in full: 8 + 3 x 2
        ([8] * 4, 0.7, 20),  # the first and the last
        ([8] * 4, 0.82, 26),  # and one more
        ([8] * 4, 1.0, 32),
        ([8, 8, 4, 8, 4, 8], 0.75, 28),  # 8 + 8 + 1 + 2 + 1 + 8 of 30: one of 4 more would do, but one of 8 would not
        ([8, 8, 4, 8, 4, 8], 0.85, 34),  # the most that one more comes to
        ([5], 0.25, 2),
        ([], 0.5, 0),
    ],
)
def test_the_budget_in_figures(counts: list[int], retention: float, visual: int) -> None:
    module = cache(chunk=1, pool=4, retention=retention)
    assert module.kv_length(prompt(counts)) == HEAD + 2 * len(counts) + visual


def test_a_gap_in_the_stretches_makes_no_empty_chunk() -> None:
    parts = [prompt([4, 4], head=HEAD), prompt([4, 4], head=0, first=9), prompt([4] * 3, head=0, first=20)]
    passage, module = Passage.joined(parts), cache(chunk=2, block=2, retention=0.7)
    memory = module.recall(language_model(), module.read(language_model(), passage), question())
    assert len(memory) <= module.kv_length(passage)
    assert module._sizes(passage.visual, passage.stretch) == [8, 4, 4, 8, 4]


def test_beside_the_cache_one_mean_a_stretch_is_held() -> None:
    module, passage = cache(), prompt([4] * 6)
    state = module.read(language_model(), passage)
    assert state.memory is not None
    assert module.nbytes(state) - state.memory.nbytes == 2 * 6 * 16 * 4  # layers, stretches, keys' size, bytes


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"retention": 0.2}, r"retention=0\.2: with pool=4 no less than 0\.25 is recalled.*set pool=5"),
        ({"block": 0}, "block=0 must be at least 1"),
        ({"previous": -2}, "previous=-2 must be at least -1"),
        ({"pool": 0}, "pool=0 must be at least 1"),
    ],
)
def test_what_cannot_be_met_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChunkedPrefill.Config(**params)
