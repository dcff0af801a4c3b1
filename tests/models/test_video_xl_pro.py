"""Video-XL-Pro as released: what each stage promises, and the selection against the full masked matrix."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests import tiny_lm
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.released.video_xl_pro import (
    ReleasedLayout,
    VideoXLPro,
    pooled,
    pooled_source,
    released_parts,
    released_prompt,
    rotated,
)
from vxl_lightning.tokens import VideoGrid

SIDE, QUESTION = 8, "Which shape?"
PER_GROUP = SIDE * SIDE // 4


def build(pad: str = "last", keep: float = 0.7, **changed: Any) -> VideoXLPro:
    config = VideoLMConfig(
        dim=32,
        **released_parts(pad) | changed,
        prompt=released_prompt(keep),
        adapter=AdapterConfig(rank=0),
        released=True,
    )
    model = build_video_lm(config, (tiny_lm.language_model(), tiny_lm.tokenizer(template=None)))
    assert isinstance(model, VideoXLPro)
    torch.manual_seed(1)
    for p in (*model.compressor.parameters(), *model.projector.parameters()):
        p.data.add_(torch.randn_like(p), alpha=0.2)
    return model.eval()


def grid(frames: int, step: float = 1.5) -> VideoGrid:
    features = torch.randn(1, frames, SIDE, SIDE, 32, generator=torch.Generator().manual_seed(0))
    return VideoGrid.of(features, step * torch.arange(frames)[None])


def test_rotation_turns_neighbouring_channels_by_their_place() -> None:
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 2.0]])
    slow = torch.tensor(1e-3)  # 1e6 ** (-2 / 4)
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    want = torch.stack(
        [
            torch.tensor([1.0, 0.0, 1.0, 0.0]),
            torch.stack([one.cos(), one.sin(), slow.cos(), slow.sin()]),
            torch.stack([-two.sin(), two.cos(), -2 * (2 * slow).sin(), 2 * (2 * slow).cos()]),
        ]
    )
    torch.testing.assert_close(rotated(x), want)


def test_pooling_takes_means_of_2x2_tokens_and_source_follows() -> None:
    tokens = torch.arange(16.0)[:, None]  # two groups of 2 x 4
    assert pooled(tokens, 2, 4)[:, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    source = torch.arange(-1, 16)
    assert pooled_source(source, 2, 4).tolist() == [-1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]


@torch.no_grad()
def test_pooling_comes_after_the_projector() -> None:
    model, video = build(), grid(9)
    before = model.compressor(video)
    projected = model.project(video)
    assert projected.tokens.lengths.tolist() == [3 * PER_GROUP]
    picture = model.projector(before.features).view(3, SIDE, SIDE, -1).permute(0, 3, 1, 2)
    want = F.avg_pool2d(picture, 2).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(projected.features, want, atol=1e-5, rtol=1e-4)
    # A token stands for 2x2 cells of a group's frames, of which the last group has one.
    assert projected.tokens.weight.tolist() == [16.0] * 2 * PER_GROUP + [4.0] * PER_GROUP


@pytest.mark.parametrize(("candidates", "kept"), [(288, 192), (144, 96), (32, 16), (20, 16), (16, 16), (9, 9)])
def test_the_number_kept_is_rounded_down_to_16(candidates: int, kept: int) -> None:
    assert build().layout.budget(candidates) == kept


def full_matrix_prefix(model: VideoXLPro, video: VideoGrid) -> tuple[Tensor, Tensor]:
    """The definition written out with all visual x all time scores: embeddings before the question, tokens kept."""
    layout, selector, table = model.layout, model.selector, model.embedding
    assert isinstance(layout, ReleasedLayout) and selector is not None
    time: Any = selector.time
    visual: Any = selector.visual
    out: Any = selector.out
    text: Any = selector.text
    features = model.project(video).features
    groups = len(features) // PER_GROUP
    ids = [
        torch.tensor(layout.tokenizer.encode(f"Time {t:06.1f}s:", add_special_tokens=False))
        for t in video.times[0, ::4].tolist()
    ]
    m = len(ids[0])
    times = table(torch.cat(ids))
    own = torch.arange(groups).repeat_interleave(PER_GROUP)[:, None] == torch.arange(groups).repeat_interleave(m)
    heads = selector.config.heads
    q = visual(features).unflatten(-1, (heads, -1)).transpose(0, 1)
    k = time(times).unflatten(-1, (heads, -1)).transpose(0, 1)
    logits = (q @ k.mT / k.shape[-1] ** 0.5).masked_fill(~own, -6e4)
    gathered = out((logits.softmax(-1) @ k).transpose(0, 1).flatten(1))
    prompt = (
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    asked = table(torch.tensor(layout.tokenizer.encode(prompt, add_special_tokens=False)))
    scores = (gathered @ F.gelu(text(asked)).T).mean(1)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    kept = scores.topk(int(len(scores) * 0.7) // 16 * 16).indices.sort().values
    sequence = torch.cat([times.view(groups, m, -1), features.view(groups, PER_GROUP, -1)], 1).flatten(0, 1)
    sequence = rotated(sequence)
    place = torch.arange(groups * (m + PER_GROUP)).view(groups, -1)[:, m:].flatten()
    sequence = sequence.index_add(0, place, scores[:, None].expand(-1, sequence.shape[1]))
    stays = torch.ones(len(sequence), dtype=torch.bool)
    stays[place] = False
    stays[place[kept]] = True
    head = table(torch.tensor(layout.chat.head))
    return torch.cat([head, sequence[stays]]), kept


@torch.no_grad()
@pytest.mark.parametrize(("frames", "pad"), [(8, "last"), (13, "last"), (14, "spread"), (6, "spread")])
def test_the_prefix_equals_the_full_masked_matrix(frames: int, pad: str) -> None:
    model, video = build(pad), grid(frames)
    prefix = model.prefix(model.project(video), 0, QUESTION)
    want, kept = full_matrix_prefix(model, video)
    assert prefix.token.tolist() == kept.tolist()
    torch.testing.assert_close(prefix.embeds, want, atol=2e-4, rtol=1e-4)
    assert prefix.place.shape == prefix.token.shape and bool((prefix.place.diff() > 0).all())


@torch.no_grad()
def test_the_time_of_a_group_stays_when_its_tokens_go() -> None:
    model, video = build(keep=0.06), grid(64)
    prefix = model.prefix(model.project(video), 0, QUESTION)
    assert len(prefix.token) == 16  # of 256
    one = len(model.tokenizer.encode("Time 0000.0s:", add_special_tokens=False))
    assert len(prefix.embeds) == len(model.layout.chat.head) + 16 * one + 16


def test_scores_carry_gradients_to_the_selector() -> None:
    model, video = build(), grid(8)
    model.prefix(model.project(video), 0, QUESTION).embeds.square().sum().backward()
    assert model.selector is not None
    for name, p in (*model.selector.named_parameters(), *model.projector.named_parameters()):
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()), name


def test_it_answers_and_learns_like_any_video_lm() -> None:
    model, video = build(), grid(6)
    answer = model.answer(video, QUESTION, tiny_lm.SHAPES)
    assert answer.text in tiny_lm.SHAPES and answer.counts["visual_tokens"] == 16
    assert model.loss(model.project(video), [[(QUESTION, "disk")]]).item() > 0


def test_parts_that_are_not_the_release_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs the compressor .*'released': True"):
        build(compressor={"name": "dts", "retention": 1 / 4})
    with pytest.raises(UserError, match=r"at retention=0.0625"):
        build(compressor={"name": "dts", "retention": 1 / 16, "released": True})
    with pytest.raises(UserError, match="needs the selector"):
        build(selector={"name": "query_aware"})
    with pytest.raises(UserError, match="the grid is 7x8; give the encoder grid=24"):
        build().project(VideoGrid.of(torch.randn(1, 4, 7, 8, 32)))
