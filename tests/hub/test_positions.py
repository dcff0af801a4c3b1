"""Positions of time, height and width, counted by hand; times; what cannot be wrapped says so."""

import pytest
import torch
from tests.hub import tiny_families as tiny

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.compressors.per_video import VideoCompressor, kept_cells
from vxl_lightning.compressors.pool import Pool
from vxl_lightning.compressors.uniform import UniformFrames
from vxl_lightning.errors import UserError
from vxl_lightning.hub import compressing
from vxl_lightning.selectors.similarity import SimilaritySelector
from vxl_lightning.tokens import VideoGrid


def half(frames=2):
    return UniformFrames(UniformFrames.Config(retention=1 / frames), 32)


@torch.no_grad()
def test_positions_of_time_height_and_width_are_those_counted_by_hand():
    """Row 0: 1 2 3, a mark, 4 frames of 2 x 3 cells, a mark, 5 words. A frame of cells is two of the video, which
    tells that they are 1 s apart, and there are 2 positions to a second: frames stand at 4, 6, 8, 10. The text after
    stands behind the larger side, 3: at 7. Kept are the frames 1 and 3."""
    model, given = tiny.model("qwen2_5_vl"), tiny.inputs("qwen2_5_vl")
    with compressing(model, half()) as boundary:
        model(**given)
    time = [0, 1, 2, 3, *[6] * 6, *[10] * 6, 7, 8, 9, 10, 11, 12]
    height = [0, 1, 2, 3, *[4, 4, 4, 5, 5, 5] * 2, 7, 8, 9, 10, 11, 12]
    width = [0, 1, 2, 3, *[4, 5, 6] * 4, 7, 8, 9, 10, 11, 12]
    assert boundary.last.position_ids[:, 0].tolist() == [time, height, width]


@torch.no_grad()
def test_a_merged_token_stands_at_the_middle_of_its_cells():
    """Pairs of frames become one row of 3: time halves down to the first frame of a pair, height to the upper row."""
    model, given = tiny.model("qwen2_vl"), tiny.inputs("qwen2_vl")
    pool = Pool(Pool.Config(retention=1 / 4, frames_per_group=2, block_aspect=0.5), 32)
    with compressing(model, pool) as boundary:
        model(**given)
    visual = boundary.last.position_ids[:, 0, 4:10].tolist()
    assert visual == [[4, 4, 4, 6, 6, 6], [4] * 6, [4, 5, 6] * 2]


@torch.no_grad()
def test_deep_features_of_a_token_are_the_mean_over_its_cells():
    model, given = tiny.model("qwen3_vl"), tiny.inputs("qwen3_vl")
    seen = []
    inner = model.model.language_model

    def keep(module, _given, kwargs):
        seen.append((kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"]))

    first = inner.register_forward_pre_hook(keep, with_kwargs=True)
    with compressing(model, Pool(Pool.Config(retention=1 / 6, frames_per_group=1), 32)) as boundary:
        second = inner.register_forward_pre_hook(keep, with_kwargs=True)
        model(**given)
    first.remove(), second.remove()
    (_, whole), (mask, fewer) = seen
    assert torch.equal(mask, boundary.last.mask & mask) and int(mask.sum()) == 7
    for every, left in zip(whole, fewer, strict=True):
        assert torch.allclose(left, every.view(7, 6, 32).mean(1), atol=1e-6)


class Watching(VideoCompressor):
    """Keeps the first frame, and what it was given."""

    origin = "a test"
    needs_query = True

    def num_tokens(self, num_frames, height, width):
        return height * width

    def compress_video(self, video: VideoGrid, query):
        self.given = [*getattr(self, "given", []), (video.times[0].tolist(), query)]
        keep = torch.zeros(video.features.shape[1:4], dtype=torch.bool)
        keep[0] = True
        return kept_cells(video.features[0], keep)


@torch.no_grad()
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_method_reads_times_and_the_question_after_the_video(name):
    model, given = tiny.model(name), tiny.inputs(name)
    watching = Watching(Compressor.Config(), 32)
    with compressing(model, watching):
        model(**given)
    table = model.get_input_embeddings()
    for row, (times, query) in enumerate(watching.given):
        apart = (1.0, 2.0)[row] if name == "qwen2_5_vl" else 1.0
        assert times == [apart * i for i in range(tiny.cells(name)[row][0])]
        words = given["input_ids"][row][-(5 if row == 0 else 3) :]
        assert torch.equal(query[-len(words) :], table(words)) and len(query) <= len(words) + 1
    watching.given = []
    told = [torch.arange(size[0]) * 0.25 for size in tiny.cells(name)]
    with compressing(model, watching, times=told):
        model.generate(**given, max_new_tokens=1, num_beams=2)
    rows = watching.given if len(watching.given) == 2 else watching.given[::2]
    assert [times for times, _ in rows] == [t.tolist() for t in told]


@torch.no_grad()
def test_a_selector_keeps_the_frames_a_question_needs():
    model, given = tiny.model("llava_next_video"), tiny.inputs("llava_next_video")
    selector = SimilaritySelector(SimilaritySelector.Config(), dim=32)
    with compressing(model, selector=selector, select=2) as boundary:
        announced = boundary.announced(given)
        model(**given)
    assert announced == boundary.last.counts and announced.visual_tokens == [8, 8]
    for tokens in boundary.last.tokens:
        kept = (tokens.source[0] >= 0).flatten(1)
        assert kept.all(1).sum() == 2 and kept.any(1).sum() == 2, "whole frames"


@torch.no_grad()
def test_a_prompt_without_video_is_left_alone_in_a_batch_and_by_itself():
    model, given = tiny.model("qwen2_vl"), tiny.inputs("qwen2_vl")
    words = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    alone = model(**words).logits
    given["input_ids"][1, :] = torch.where(given["input_ids"][1] == tiny.VIDEO, 33, given["input_ids"][1])
    given["mm_token_type_ids"][1] = 0
    given["video_grid_thw"] = given["video_grid_thw"][:1]
    given["pixel_values_videos"] = given["pixel_values_videos"][: int(given["video_grid_thw"].prod())]
    both = model(**given).logits
    with compressing(model, half()) as boundary:
        assert torch.equal(model(**words).logits, alone) and boundary.last is None
        mixed = model(**given).logits
        assert boundary.last.counts.visual_tokens == [12, 0]
    real = int(given["attention_mask"][1].sum())
    assert torch.allclose(mixed[1, -real:], both[1, -real:], atol=1e-5)


class NeedsImportance(Watching):
    needs_importance = True


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"compressor": NeedsImportance(Compressor.Config(), 32)}, "attention mass of the vision encoder"),
        ({"compressor": UniformFrames(Compressor.Config(), 16)}, "dim=16"),
        ({"select": 2}, "give a selector"),
        ({"selector": SimilaritySelector(SimilaritySelector.Config(), dim=32)}, "what it may keep"),
    ],
)
def test_a_method_that_cannot_work_is_refused_before_anything_runs(more, says):
    with pytest.raises(UserError, match=says), compressing(tiny.model("llava_onevision"), **more):
        pass


def test_a_model_of_another_kind_is_refused_with_those_that_are_known():
    from tests import tiny_lm

    with (
        pytest.raises(UserError, match=r"model_type='llama'.*internvl.*qwen2_5_vl"),
        compressing(tiny_lm.language_model(), half()),
    ):
        pass


@torch.no_grad()
def test_what_cannot_be_compressed_is_refused_and_the_model_works_on():
    model, given = tiny.model("video_llama_3"), tiny.inputs("video_llama_3")
    holes = given | {"video_compression_mask": given["video_compression_mask"].clone()}
    holes["video_compression_mask"][3] = False
    with compressing(model, half()) as boundary:
        with pytest.raises(UserError, match="use_token_compression=False"):
            boundary.announced(holes)
        with pytest.raises(UserError, match="pass input_ids"):
            model(inputs_embeds=torch.zeros(1, 4, 32))
        with pytest.raises(UserError, match="cannot be shortened"):
            model(**{**given, "attention_mask": torch.ones(2, 1, 3, 3)})
        with pytest.raises(UserError, match="placeholders of video"):
            boundary.announced({**given, "video_grid_thw": torch.tensor([[4, 4, 4], [3, 4, 6]])})
        cache = model(**given, use_cache=True).cache
        with pytest.raises(UserError, match="does not go on from a prompt"):
            model(input_ids=torch.tensor([[5], [5]]), attention_mask=torch.ones(2, 3), cache=cache)
        with pytest.raises(UserError, match="cached already"):
            model(**given, cache=cache)
    with compressing(model, half()), pytest.raises(UserError, match="another context"):
        model(input_ids=torch.tensor([[5], [5]]), attention_mask=torch.ones(2, 40), cache=cache)
    assert not model.model._forward_pre_hooks and not model.model.language_model._forward_pre_hooks


@pytest.mark.parametrize("count", [1, 3])
def test_times_of_another_number_of_videos_are_refused(count):
    model, given = tiny.model("qwen2_vl"), tiny.inputs("qwen2_vl")
    times = [torch.arange(tiny.FRAMES)] * count
    with compressing(model, half(), times=times) as boundary, pytest.raises(UserError, match="times has"):
        boundary.announced(given)
