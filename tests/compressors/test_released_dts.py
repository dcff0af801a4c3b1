"""The released Dynamic Token Synthesizer: each quirk against its definition, and none of them unless asked for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vxl_lightning.compressors.dts import DynamicTokenSynthesizer, TemporalAttention
from vxl_lightning.compressors.released import released_slots, spread_frames
from vxl_lightning.tokens import VideoGrid


def build(**params: Any) -> DynamicTokenSynthesizer:
    torch.manual_seed(0)
    config = DynamicTokenSynthesizer.Config(**{"retention": 1 / 4, "released": True} | params)
    module = DynamicTokenSynthesizer(config, dim=32)
    for p in module.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    return module.eval()


def grid(frames: int, batch: int = 1) -> VideoGrid:
    return VideoGrid.of(torch.randn(batch, frames, 2, 4, 32, generator=torch.Generator().manual_seed(1)))


def test_slots_are_the_memory_of_frames_read_as_channels_first() -> None:
    # Frame f, channel d holds 10 f + d. In memory 0 1 2 10 11 12 20 21 22 30 31 32, cut into channels of four slots.
    cells = (10 * torch.arange(4)[:, None] + torch.arange(3)).view(1, 4, 1, 1, 3).float()
    assert released_slots(cells)[0, :, 0, 0].T.tolist() == [[0, 1, 2, 10], [11, 12, 20, 21], [22, 30, 31, 32]]


def test_slots_of_every_cell_are_its_own() -> None:
    cells = torch.randn(2, 4, 3, 5, 8)
    memory = cells.permute(0, 1, 4, 2, 3).contiguous().view(2, 8, 4, 3, 5)
    assert torch.equal(released_slots(cells), memory.permute(0, 2, 3, 4, 1))


def test_the_relative_term_is_transposed_and_the_tables_reach_to_64() -> None:
    torch.manual_seed(0)
    block = TemporalAttention(8, slots=4, released=True)
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    assert block.relative_k.shape == block.relative_v.shape == (129, 8)
    x = torch.randn(1, 4, 1, 8)
    y = torch.nn.functional.group_norm(x[:, :, 0].mT, 8, block.norm.weight, block.norm.bias, 1e-6)[0].T
    q, k, v = block.qkv(y).chunk(3, -1)
    rows: list[Tensor] = []
    for i in range(4):
        score = torch.stack([q[i] @ k[j] / 8**0.5 + q[j] @ block.relative_k[64 + i - j] / 8**0.25 for j in range(4)])
        values = torch.stack([v[j] + block.relative_v[64 + j - i] for j in range(4)])
        rows.append(score.softmax(0) @ values)
    torch.testing.assert_close(block(x)[0, :, 0], x[0, :, 0] + block.out(torch.stack(rows)))


@pytest.mark.parametrize(
    ("frames", "slots"),
    [
        (1, [0, 0, 0, 0]),
        (3, [0, 1, 2, 2]),
        (4, [0, 1, 2, 3]),
        (5, [0, 0, 1, 1, 2, 3, 3, 4]),
        (7, [0, 0, 1, 2, 3, 4, 5, 6]),
        (10, [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]),
    ],
)
def test_frames_are_doubled_evenly(frames: int, slots: list[int]) -> None:
    frame, filled = spread_frames(torch.tensor([frames]), 4)
    assert frame[0].tolist() == slots and bool(filled.all())


def test_spread_tokens_say_which_frames_they_carry() -> None:
    video = grid(5)
    tokens = build(pad="spread")(video)
    assert tokens.lengths.tolist() == [16]
    # Slots 0 0 1 1 | 2 3 3 4: the first group carries frames 0 and 1, the second 2, 3 and 4.
    assert (tokens.source[0, :, 0, 0] // 8).tolist() == [0, 0, 1, 1, 1]
    assert tokens.span[0].tolist() == [0, 1] and tokens.span[-1].tolist() == [2, 4]
    whole = VideoGrid.of(video.features[:, [0, 0, 1, 1, 2, 3, 3, 4]])
    torch.testing.assert_close(tokens.features, build()(whole).features)


def test_spread_of_a_batch_is_that_of_each_video() -> None:
    module, both = build(pad="spread"), grid(9, batch=2)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    together = module(VideoGrid(both.features, both.times, mask)).per_video()
    torch.testing.assert_close(together[0], module(VideoGrid.of(both.features[:1])).features)
    torch.testing.assert_close(together[1], module(VideoGrid.of(both.features[1:, :5])).features)


def test_a_stream_cannot_know_which_frames_are_doubled() -> None:
    assert build().causal and not build(pad="spread").causal
    with pytest.raises(ValueError, match="pad=last"):
        build(pad="spread").step(grid(4))


def test_chunks_of_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module, video = build(), grid(20)
    whole = module(video).features
    monkeypatch.setattr("vxl_lightning.compressors.dts.GROUPS_AT_ONCE", 2)
    torch.testing.assert_close(module(video).features, whole)


def test_quirks_are_behind_one_setting() -> None:
    plain, released = build(released=False, residual=False), build()
    state = released.state_dict()
    for i, slots in ((1, 4), (4, 2)):
        for kind in ("k", "v"):  # the rows that occur
            name = f"blocks.{i}.relative_{kind}"
            state[name] = state[name][65 - slots : 64 + slots]
    plain.load_state_dict(state)
    assert (plain(grid(4)).features - released(grid(4)).features).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"frames_per_group": 8}, "frames_per_group=8"),
        ({"reduction": "saliency"}, "reduction=saliency"),
        ({"channels": 16}, "channels=16"),
        ({"pad": "random"}, "pad='random' is not one of last, spread"),
        ({"pad": "spread", "released": False}, "pad=spread is for released=true"),
    ],
)
def test_settings_that_the_release_has_not(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**params)
