from dataclasses import replace

import pytest
import torch
from tests import tiny_lm

from vxl_lightning import registry
from vxl_lightning.errors import UserError
from vxl_lightning.models.alignment import (
    NAMING_WEIGHT,
    SCALE,
    SILENCE_WEIGHT,
    Event,
    alignment_loss,
    events,
    spoken,
    word_embeddings,
    word_reach,
)
from vxl_lightning.models.packing import Segment, pack, side_by_side, trie
from vxl_lightning.models.prefix import Projected, PromptConfig, shortened
from vxl_lightning.models.projector import Projector
from vxl_lightning.models.time_text import RELEASED, TimeText
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.selectors.base import Selector
from vxl_lightning.tokens import VideoGrid

QUESTIONS = ["shape?", "a longer question?", "x"]


@pytest.fixture(scope="module")
def language_model():
    return tiny_lm.language_model()


class FirstGroups(Selector):
    needs_query = True

    def score(self, candidates, query):
        return -candidates.times + 0 * query.sum()


def make(language_model, compressor="pool", selector=None, **prompt):
    torch.manual_seed(1)
    spec = {"name": compressor} if compressor == "none" else {"name": compressor, "retention": 1 / 16}
    spec |= {"retention": 1.0} if compressor == "none" else {}
    module = registry.build("compressor", spec, dim=tiny_lm.DIM)
    return VideoLM(
        language_model, tiny_lm.tokenizer(), Projector(tiny_lm.DIM, 32), module, selector, PromptConfig(**prompt)
    ).eval()


def grid(batch=2, frames=8, seed=0):
    return VideoGrid.of(torch.randn(batch, frames, 4, 4, tiny_lm.DIM, generator=torch.Generator().manual_seed(seed)))


def test_packed_questions_equal_questions_alone(language_model):
    model = make(language_model)
    with torch.no_grad():
        projected = model.project(grid())
        pairs = [(q, a) for q, a in zip(QUESTIONS, ["disk", "r", "blue"], strict=True)]
        together = model.log_likelihood(
            pack(model._trees(projected, [pairs, pairs[:1]], False, True)[0], model.embedding)
        )
        alone = [
            model.log_likelihood(pack(model._trees(projected, [[p], []], False, True)[0], model.embedding))
            for p in pairs
        ]
    assert torch.allclose(together[: sum(map(len, alone))], torch.cat(alone), atol=1e-5)


def test_packed_equals_the_language_model_on_the_plain_sequence(language_model):
    model = make(language_model)
    with torch.no_grad():
        prefix = model.prefix(model.project(grid(1)), 0).embeds
        question, answer = model.layout.chat.question("shape?"), model.layout.chat.answer("disk")
        tree = [Segment(prefix, -1), Segment(model.ids([5, 6, 7]), 0), Segment(model.ids(question), 0)]
        got = model.log_likelihood(pack([[*tree, Segment(model.ids(answer), 2, True)]], model.embedding))
        embeds = torch.cat([prefix, model.embedding(model.ids(question + answer))])[None]
        logits = language_model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    start = len(prefix) + len(question)
    want = torch.stack([logits[start + i - 1, t] for i, t in enumerate(answer)])
    assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("length", [1, 60, 10_000])
def test_trees_side_by_side_read_what_they_read_in_rows_of_their_own(language_model, length):
    model = make(language_model)
    with torch.no_grad():
        projected = model.project(grid(3))
        pairs = [(q, a) for q, a in zip(QUESTIONS, ["disk", "r", "blue"], strict=True)]
        trees = model._trees(projected, [pairs[:1], pairs, pairs[1:]], False, True)[0]
        rows = side_by_side(trees, length)
        together, alone = pack(rows, model.embedding), pack(trees, model.embedding)
        got, want = (model.log_likelihood(packed) for packed in (together, alone))
    longest = max(sum(len(s.content) for s in tree) for tree in trees)
    assert together.embeds.shape[1] <= max(length, longest)
    assert len(rows) == (1 if length == 10_000 else 3 if length == 1 else len(rows))
    assert torch.allclose(got.sort().values, want.sort().values, atol=1e-5)


def test_loss_covers_answers_alone(language_model):
    model = make(language_model)
    packed = pack(model._trees(model.project(grid(1)), [[("shape?", "disk")]], False, True)[0], model.embedding)
    assert packed.predict[:, 2].tolist() == model.layout.chat.answer("disk") + model.layout.chat.end()


def test_dialogue_reads_what_came_before(language_model):
    model = make(language_model)
    projected = model.project(grid(1))
    losses = [
        model.loss(projected, [[("a?", first), ("b?", "ring")]], dialogue).item()
        for dialogue in (False, True)
        for first in ("xx", "yy")
    ]
    second = [
        model.log_likelihood(pack(model._trees(projected, [[("a?", f), ("b?", "ring")]], d, True)[0], model.embedding))[
            3:
        ]
        for d in (False, True)
        for f in ("xx", "yy")
    ]
    assert torch.allclose(second[0], second[1], atol=1e-5) and not torch.allclose(second[2], second[3], atol=1e-4)
    assert all(loss > 0 for loss in losses)


def test_choices_in_one_pass_equal_full_likelihoods(language_model):
    model = make(language_model)
    choices = [["1 s", "10 s", "14 s"], ["red", "red ring"]]  # shared beginnings; one inside another
    video = grid()
    scores = model.answers(video, [QUESTIONS[:2], QUESTIONS[1:2]], [choices, choices[:1]])
    assert [len(s) for s in scores] == [2, 1]
    with torch.no_grad():
        prefix = model.prefix(model.project(video), 0).embeds
        for question, options, got in zip(QUESTIONS[:2], choices, scores[0], strict=True):
            end = model.layout.chat.end() if options == choices[1] else []
            for option, score in zip(options, got, strict=True):
                tree = [
                    Segment(prefix, -1),
                    Segment(model.ids(model.layout.chat.question(question)), 0),
                    Segment(model.ids(model.layout.chat.answer(option) + end), 1, True),
                ]
                assert model.log_likelihood(pack([tree], model.embedding)).sum().item() == pytest.approx(
                    score.item(), abs=1e-4
                )


def test_trie_feeds_no_last_token():
    assert trie([[1], [2]]).nodes == []
    assert trie([[1, 2], [1, 3, 4]]).nodes == [(1, -1), (3, 0)]


def test_prefix_has_a_time_before_each_group(language_model):
    model = make(language_model)
    prefix = model.prefix(model.project(grid(1)), 0)
    head = len(model.layout.chat.head)
    assert prefix.place.tolist() == [head + 3 + i for i in range(4)] + [head + 10 + i for i in range(4)]  # "0 s", "4 s"
    time = model.embedding(model.ids(model.tokenizer.encode("4 s", add_special_tokens=False)))
    assert torch.equal(prefix.embeds[head + 7 : head + 10], time)
    bare = make(language_model, time_format="").prefix(model.project(grid(1)), 0)
    assert len(bare.embeds) == head + 8


def test_time_may_follow_its_group(language_model):
    model = make(language_model, time_place="after")
    prefix = model.prefix(model.project(grid(1)), 0)
    head = len(model.layout.chat.head)
    assert prefix.place.tolist() == [head + i for i in range(4)] + [head + 7 + i for i in range(4)]
    time = model.embedding(model.ids(model.tokenizer.encode("4 s", add_special_tokens=False)))
    assert torch.equal(prefix.embeds[head + 11 :], time)
    with pytest.raises(ValueError, match="time_place='under'"):
        PromptConfig(time_place="under")


def test_time_text():
    tokenizer = tiny_lm.tokenizer()
    assert tokenizer.decode(TimeText(tokenizer, RELEASED).ids(6)) == "Time 0006.0s:"
    with pytest.raises(UserError, match="time_format="):
        TimeText(tokenizer, "{:d} s")


def test_padding_and_batch_do_not_change_answers(language_model):
    model = make(language_model)
    long, short = grid(1, 8), grid(1, 4, seed=3)
    features = torch.zeros(2, 8, 4, 4, tiny_lm.DIM)
    features[0], features[1, :4] = long.features[0], short.features[0]
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 4:] = False
    both = VideoGrid(features, torch.arange(8.0).expand(2, 8), mask)
    asked, options = [["shape?"]] * 2, [[tiny_lm.SHAPES]] * 2
    together = model.answers(both, asked, options)
    for i, one in enumerate((long, short)):
        assert torch.allclose(together[i][0], model.answers(one, asked[:1], options[:1])[0][0], atol=1e-5)


@pytest.mark.parametrize("choices", [tiny_lm.SHAPES, None])
def test_answer(language_model, choices):
    model = make(language_model)
    answer = model.answer(grid(1), "shape?", choices, max_new_tokens=3)
    repeated = model.answer(grid(1), "shape?", choices, max_new_tokens=3)
    assert (answer.text, answer.scores) == (repeated.text, repeated.scores)
    assert choices is None or answer.text == max(answer.scores, key=answer.scores.get)
    assert answer.counts["visual_tokens"] == 8 and answer.counts["grid_tokens"] == 128
    assert (
        answer.counts["kv_bytes"] == answer.counts["kv_length"] * 2 * 2 * 2 * 8 * 4
    )  # layers, k and v, heads, size, fp32
    assert answer.span in [(0.0, 3.0), (4.0, 7.0), None]


def test_evidence_is_the_group_the_answer_hangs_on(language_model):
    model = make(language_model)
    features = torch.zeros(1, 8, 4, 4, tiny_lm.DIM)
    features[0, 4:] = 3.0
    with torch.no_grad():
        for p in model.projector.parameters():
            if p.ndim == 1:
                p.zero_()  # then the first group's tokens are zero, and so is their input times gradient
    assert model.answer(VideoGrid.of(features), "shape?", tiny_lm.SHAPES).span == (4.0, 7.0)


def test_selector_keeps_groups(language_model):
    selector = FirstGroups(FirstGroups.Config(), dim=32)
    model = make(language_model, selector=selector, select=1)
    prefix = model.prefix(model.project(grid(1)), 0, "shape?")
    assert prefix.token.tolist() == [0, 1, 2, 3] and prefix.selection.index.tolist() == [0]
    scores = model.answers(grid(2), [QUESTIONS, ["x"]], [[tiny_lm.SHAPES] * 3, [tiny_lm.SHAPES]])
    assert [len(s) for s in scores] == [3, 1]
    everything = make(language_model, selector=selector, select=9)
    whole = make(language_model).answers(grid(1), [["x"]], [[tiny_lm.SHAPES]])
    assert torch.allclose(everything.answers(grid(1), [["x"]], [[tiny_lm.SHAPES]])[0][0], whole[0][0], atol=1e-5)


def test_users_mistakes(language_model):
    with pytest.raises(UserError, match="select=0"):
        make(language_model, selector=FirstGroups(FirstGroups.Config(), dim=32))
    uneven = make(language_model, selector=FirstGroups(FirstGroups.Config(), dim=32), select=1, frames_per_time=8)
    with pytest.raises(UserError, match="same number of tokens"):
        uneven.prefix(uneven.project(grid(1, 12)), 0, "x")
    with pytest.raises(UserError, match="no sample"):
        make(language_model).loss(make(language_model).project(grid(1)), [[]])
    with pytest.raises(UserError, match="choices="):
        make(language_model).answers(grid(1), [["x"]], [[["red", "red"]]])
    with pytest.raises(ValueError, match="one video"):
        make(language_model).answer(grid(2), "x")


def aligned(model, video):
    """The same tokens, the first of each group replaced by the word red."""
    projected = model.project(video)
    features = 0 * projected.features
    features[::4] = word_embeddings(model, ["red"])
    return Projected(projected.tokens, features, projected.times)


def test_alignment_wants_the_word_in_its_group(language_model):
    model = make(language_model)
    projected = aligned(model, grid(1))
    losses = [
        alignment_loss(model, projected, [seen], ["blue", "red"]).item()
        for seen in ([Event(0.0, ("red",)), Event(4.0, ("red",))], [Event(0.0, ("red",))], [])
    ]
    # Said exactly: all that is left is how far red is from blue along either, in a cross-entropy.
    reach = word_reach(model, projected.features[:1], ["blue", "red"])
    naming = torch.nn.functional.cross_entropy(SCALE * reach, torch.tensor([1])).item()
    assert losses[0] == pytest.approx(NAMING_WEIGHT * naming, abs=1e-4)
    assert losses[0] < losses[1]
    # Two tokens of eight speak where nothing is to be said.
    lengths = word_embeddings(model, ["blue", "red"]).norm(dim=1)
    spoken_of = 2 / 8 * (lengths[1] / lengths.mean()).square().item()
    assert losses[2] == pytest.approx(SILENCE_WEIGHT * spoken_of, abs=1e-4)


def test_two_words_of_a_group_are_said_by_their_sum(language_model):
    model = make(language_model)
    video = model.project(grid(1))
    both = word_embeddings(model, ["red", "star"]).sum(0)
    features = torch.zeros_like(video.features)
    features[2] = both
    said = Projected(video.tokens, features, video.times)
    seen, words = [[Event(0.0, ("red", "star"))]], ["blue", "disk", "red", "star"]
    best = alignment_loss(model, said, seen, words)
    for change in (0.5, 2.0):  # too faint, too loud
        other = Projected(said.tokens, said.features * change, said.times)
        assert best < alignment_loss(model, other, seen, words)
    noisy = Projected(said.tokens, said.features + 0.1, said.times)
    assert best < alignment_loss(model, noisy, seen, words)


def test_clips_that_show_nothing_can_be_told(language_model):
    empty = replace(tiny_lm.sample(), meta={"needles": []})
    told = spoken(make(language_model), [empty], grid(1).times, 3)
    assert told.tokens.lengths.tolist() == [6] and told.features.isfinite().all()


def test_spoken_is_aligned_and_repeats(language_model):
    model = make(language_model)
    samples = [tiny_lm.sample(0, 5.0, "blue", "star"), tiny_lm.sample(1, 0.0, "red", "disk")]
    told = spoken(model, samples, grid(2).times, 3)
    assert told.tokens.lengths.tolist() == [6, 6]
    loss = alignment_loss(model, told, [events(s) for s in samples], ["red", "blue"]).item()
    swapped = alignment_loss(model, told, [events(s) for s in reversed(samples)], ["red", "blue"]).item()
    assert loss < swapped
    alone = spoken(model, samples[1:], grid(1).times, 3)
    assert torch.equal(alone.features, told.features[6:])


def test_what_is_shorter_than_the_silence_is_silent_and_the_rest_loses_it():
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    left = shortened(x, 1.0)
    assert torch.allclose(left, torch.tensor([[2.4, 3.2], [0.0, 0.0], [0.0, 0.0]]))
    left.sum().backward()
    assert x.grad.isfinite().all()
    assert shortened(x, 0.0) is x
    with pytest.raises(ValueError, match="silence=-1"):
        PromptConfig(silence=-1)


def test_silence_is_kept_from_the_prefix_and_not_from_the_projection(language_model):
    loud, quiet = make(language_model), make(language_model, silence=0.1)
    length = language_model.get_input_embeddings().weight.norm(dim=1).mean()
    with torch.no_grad():
        heard, hushed = loud.project(grid(1)), quiet.project(grid(1))
        assert torch.equal(heard.features, hushed.features)
        prefix = quiet.prefix(hushed, 0)
        want = shortened(heard.features, 0.1 * float(length))
    assert torch.allclose(prefix.embeds[prefix.place], want[prefix.token], atol=1e-6)
    samples = [tiny_lm.sample(0, 5.0, "blue", "star")]
    told = spoken(quiet, samples, grid(1).times, 3)  # words are told as they are to be read
    prefix = quiet.prefix(told, 0)
    assert torch.equal(prefix.embeds[prefix.place], told.features)


def test_silent_tokens_may_be_left_out_with_the_times_of_groups_that_say_nothing(language_model):
    keeps, drops = (make(language_model, silence=0.1, silent=what) for what in ("keep", "drop"))
    samples = [tiny_lm.sample(0, 5.0, "blue", "star")]
    told = spoken(keeps, samples, torch.arange(8.0)[None], 3)
    quiet = replace(told, features=told.features.clone(), silence=keeps.silence)
    loud = int(told.features.norm(dim=1).argmax())
    quiet.features[[i for i in range(6) if i != loud]] *= 1e-4
    every, few = keeps.prefix(quiet, 0), drops.prefix(quiet, 0)
    assert every.token.tolist() == list(range(6)) and few.token.tolist() == [loud]
    assert torch.equal(few.embeds[few.place], every.embeds[every.place][loud][None])
    assert few.stretch.unique().tolist() == [-1, loud // 3], "no time of the group that says nothing"
    assert len(drops.prefix(replace(quiet, silence=0.0), 0).place) == 6, "without silence nothing is silent"
    with pytest.raises(ValueError, match="silent='leave' is not one of keep, drop"):
        PromptConfig(silent="leave")


def test_more_than_the_context_holds_is_refused(language_model, monkeypatch):
    model = make(language_model)
    assert model.answer(grid(1), "shape?", max_new_tokens=1).counts["kv_length"] > 10
    monkeypatch.setattr(model.plain.config, "max_position_embeddings", 10)
    with pytest.raises(UserError, match="positions and the language model has 10; look at fewer frames"):
        model.answer(grid(1), "shape?", max_new_tokens=1)
