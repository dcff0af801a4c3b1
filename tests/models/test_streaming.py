"""Streams: what is answered does not depend on how the frames came, and memory stays bounded."""

import pytest
import torch
from tests import tiny_lm

from vxl_lightning import registry
from vxl_lightning.compressors.base import GroupCompressor
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import fresh_cache
from vxl_lightning.models.prefix import PromptConfig
from vxl_lightning.models.projector import Projector
from vxl_lightning.models.streaming import StreamingVideo
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid

CHOICES = ["disk", "ring", "star"]


def make(cache, compressor="pool", selector=None, frames_per_group=4, dtype=torch.float32, **prompt):
    language_model = tiny_lm.language_model().to(dtype)
    torch.manual_seed(1)
    spec = {"name": compressor, "retention": 1 / 16}
    spec |= {"frames_per_group": frames_per_group} if compressor in ("pool", "dts") else {}
    module = registry.build("compressor", spec, dim=tiny_lm.DIM)
    return VideoLM(
        language_model,
        tiny_lm.tokenizer(),
        Projector(tiny_lm.DIM, 32),
        module,
        selector,
        PromptConfig(**prompt),
        cache=fresh_cache(language_model, cache) if cache else None,
    ).eval()


def video(frames=22, seed=0):
    features = torch.randn(1, frames, 4, 4, tiny_lm.DIM, generator=torch.Generator().manual_seed(seed))
    return VideoGrid.of(features, 0.5 * torch.arange(frames)[None].float())


def streamed(model, grid, cuts):
    stream = StreamingVideo(model)
    for begin, end in zip([0, *cuts], [*cuts, grid.shape[1]], strict=True):
        stream.add_grid(grid.frames(begin, end))
    return stream


CACHES = [
    {"name": "full"},
    {"name": "vst", "retention": 0.5, "window": 2},
    {"name": "chunked", "retention": 0.8, "block": 1, "chunk": 1, "pool": 2},
    {"name": "quantized", "retention": 0.5, "window": 12, "block": 1},
]


@pytest.mark.parametrize("cache", CACHES, ids=lambda c: c["name"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_answer_is_that_of_the_whole_video_however_it_came(cache, place):
    model, grid = make(cache, time_place=place), video()
    whole = model.answer(grid, "shape?", CHOICES).scores
    for cuts in ([], [1, 2, 3], [4, 8, 12, 16], [5, 21]):
        answer = streamed(model, grid, cuts).ask("shape?", CHOICES)
        assert answer.scores == pytest.approx(whole, abs=1e-4)
        assert answer.seconds == 10.5


@pytest.mark.parametrize(("group", "frames_per_time"), [(4, 1), (4, 2), (4, 8), (2, 4), (8, 2)])
def test_groups_and_stretches_of_other_lengths(group, frames_per_time):
    for cache in CACHES[1:3]:
        model, grid = make(cache, frames_per_group=group, frames_per_time=frames_per_time), video(24)
        whole = model.answer(grid, "shape?", CHOICES).scores
        assert streamed(model, grid, [3, 9, 17]).ask("shape?", CHOICES).scores == pytest.approx(whole, abs=1e-4)


class BackInTime(GroupCompressor):
    """The two halves of a group exchanged."""

    frames_per_group = 8

    def tokens_per_group(self, height, width):
        return 2

    def compress_groups(self, groups):
        halves = groups.features.unflatten(1, (2, 4)).mean((2, 3, 4)).flip(1)
        where = torch.tensor([1] * 4 + [0] * 4)[:, None, None].expand(groups.features.shape[1:4])
        return halves, where.expand(groups.features.shape[:4]).clone()


def test_tokens_that_go_back_in_time_are_refused_by_name():
    model, grid = make({"name": "full"}), video(16)
    model.compressor = BackInTime(BackInTime.Config(), tiny_lm.DIM)
    for ask in (model.answer, lambda grid, *asked: streamed(model, grid, [9]).ask(*asked)):
        with pytest.raises(UserError, match=r"set prompt\.frames_per_time to a multiple"):
            ask(grid, "shape?", CHOICES)
    model = make({"name": "full"}, frames_per_time=8)
    model.compressor = BackInTime(BackInTime.Config(), tiny_lm.DIM)
    whole = model.answer(grid, "shape?", CHOICES).scores
    assert streamed(model, grid, [9]).ask("shape?", CHOICES).scores == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("cache", CACHES, ids=lambda c: c["name"])
def test_a_language_model_in_bfloat16(cache):
    stream = streamed(make(cache, dtype=torch.bfloat16), video(), [7])
    assert stream.ask("shape?", CHOICES).text in CHOICES
    assert isinstance(stream.ask("shape?", max_new_tokens=2).text, str)


def test_the_context_is_what_is_attended_to_and_not_what_was_read():
    grid, whole = video(64), make({"name": "full"})
    limit = whole.answer(grid, "shape?", CHOICES).counts["kv_length"] - 20
    for cache, fits in (({"name": "full"}, False), ({"name": "vst", "retention": 0.25, "window": 2}, True)):
        model = make(cache, time_format="")
        model.plain.config.max_position_embeddings = limit if fits else 40
        stream = streamed(model, grid, [30])
        if fits:
            model.answer(grid, "shape?", CHOICES)
            stream.ask("shape?", CHOICES)
        else:
            for ask in (lambda m=model: m.answer(grid, "shape?", CHOICES), lambda s=stream: s.ask("shape?", CHOICES)):
                with pytest.raises(UserError, match="positions and the language model has 40"):
                    ask()


def test_what_is_refused_leaves_the_stream_as_it_was():
    model, grid = make({"name": "full"}), video(8)
    stream = StreamingVideo(model)
    stream.add_grid(grid.frames(0, 4))
    bad = grid.frames(4, 8)
    for wrong, said in (
        (bad.with_features(bad.features * float("nan")), "NaN or infinite"),
        (bad.with_features(bad.features[..., :3]), "of 16 channels; got 1 videos of 3"),
        (VideoGrid(*(torch.cat([x, x]) for x in (bad.features, bad.times, bad.frame_mask))), "got 2 videos"),
    ):
        with pytest.raises(UserError, match=said):
            stream.add_grid(wrong)
    stream.add_grid(bad)
    assert stream.ask("shape?", CHOICES).seconds == 3.5
    with pytest.raises(UserError, match=r"call model.eval\(\) first"):
        StreamingVideo(model.train())


def test_a_full_cache_answers_as_no_cache_does():
    grid = video()
    plain, full = make(None).answer(grid, "shape?", CHOICES), make({"name": "full"}).answer(grid, "shape?", CHOICES)
    assert full.scores == pytest.approx(plain.scores, abs=1e-4)
    assert full.counts["kv_length"] == plain.counts["kv_length"]
    said = [make(c).answer(grid, "shape?", max_new_tokens=5).text for c in (None, {"name": "full"})]
    assert said[0] == said[1]


def test_a_question_leaves_the_stream_as_it_was():
    model, grid = make({"name": "quantized", "retention": 0.5, "window": 12, "block": 1}), video()
    quiet, asked = StreamingVideo(model), StreamingVideo(model)
    for begin in range(0, 22, 3):
        part = grid.frames(begin, min(begin + 3, 22))
        quiet.add_grid(part)
        asked.add_grid(part)
        asked.ask("colour?")
    assert asked.ask("shape?", CHOICES).scores == quiet.ask("shape?", CHOICES).scores
    assert asked.nbytes == quiet.nbytes


def test_memory_is_bounded_by_the_store():
    model = make({"name": "quantized", "window": 16, "block": 1, "store": 8})
    stream, sizes = StreamingVideo(model), []
    for i in range(60):
        grid = video(4, seed=i)
        stream.add_grid(VideoGrid(grid.features, grid.times + 2 * i, grid.frame_mask))
        sizes.append(stream.nbytes)
    assert max(sizes[30:]) <= 1.05 * max(sizes[15:30]), "times in text differ in length, nothing else does"
    assert sizes[14] > 1.5 * sizes[4]
    assert stream.ask("shape?", CHOICES).kv_length < 200


def test_frames_go_through_the_encoder():
    class Encoder(torch.nn.Module):
        def forward(self, frames):
            cells = frames.float().mean(1, keepdim=True).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
            return type("Encoded", (), {"features": cells.movedim(1, -1).expand(-1, -1, -1, 16), "importance": None})

    model = make({"name": "full"})
    stream = StreamingVideo(model, Encoder())
    stream.add(torch.rand(6, 3, 8, 8), torch.arange(6))
    assert stream.ask("shape?", CHOICES).text in CHOICES


def test_what_cannot_stream_is_refused():
    with pytest.raises(UserError, match="set cache=quantized, or cache=full"):
        StreamingVideo(make(None))
    with pytest.raises(UserError, match="cannot stream: choose a causal compressor"):
        StreamingVideo(make({"name": "full"}, "uniform"))
    stream = StreamingVideo(make({"name": "full"}))
    with pytest.raises(UserError, match="nothing was seen yet"):
        stream.ask("shape?")
    with pytest.raises(UserError, match="has no encoder"):
        stream.add(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    stream.add_grid(video(4))
    with pytest.raises(UserError, match=r"the newest frame was at 1.5 s, and these begin at 0 s"):
        stream.add_grid(video(4))
