"""ReCoT: what the decoder may see, where it starts, and the copies it is measured against."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.models.recot import DecoderConfig, Reconstruction, ReCoT, reconstruction_loss, sampling_loss
from vxl_lightning.tokens import VideoGrid

SMALL = DecoderConfig(width=16, heads=2, window=4, reach=0)
COMPRESSORS = [
    {"name": "pool", "retention": 1 / 16},
    {"name": "dts", "retention": 1 / 16, "reduction": "saliency"},
    {"name": "dts", "retention": 1 / 16},
]


def grid_of(frames: int = 8, videos: int = 2, dim: int = 8, seed: int = 0) -> VideoGrid:
    return VideoGrid.of(torch.randn(videos, frames, 4, 4, dim, generator=torch.Generator().manual_seed(seed)))


def half_hidden(grid: VideoGrid) -> Tensor:
    return registry.build("masker", "random", dim=grid.shape[-1])(grid, torch.Generator().manual_seed(0)).hidden


def build(spec: dict, dim: int = 8, woken: bool = False, decoder: DecoderConfig = SMALL, **kwargs) -> ReCoT:
    torch.manual_seed(0)
    model = ReCoT(registry.build("compressor", spec, dim=dim), decoder, **kwargs)
    if woken:  # leave the zeros that it starts from, so that every path carries something
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.1)
    return model


@pytest.mark.parametrize("target", ["features", "layer_norm"])
@pytest.mark.parametrize("spec", COMPRESSORS, ids=str)
def test_starts_exactly_at_the_token_that_carries_the_cell(spec, target):
    model, grid = build(spec, target=target), grid_of()
    result = model(grid, half_hidden(grid))
    source = result.tokens.source + result.tokens.offsets[:-1, None, None, None]
    assert torch.allclose(result.predicted, model.normalise(result.tokens.features[source]), atol=1e-6)
    assert torch.equal(result.target, model.normalise(grid.features))


@pytest.mark.parametrize("fill", ["embedding", "previous"])
@pytest.mark.parametrize("spec", COMPRESSORS, ids=str)
def test_hidden_cells_are_not_seen(spec, fill):
    model, grid = build(spec, woken=True, fill=fill), grid_of()
    hidden = half_hidden(grid)
    other = grid.with_features(torch.where(hidden[..., None], torch.randn_like(grid.features), grid.features))
    assert torch.equal(model(grid, hidden).predicted, model(other, hidden).predicted)
    seen = grid.with_features(torch.where(hidden[..., None], grid.features, torch.randn_like(grid.features)))
    assert not torch.allclose(model(grid, hidden).predicted, model(seen, hidden).predicted)


def test_side_information_of_hidden_cells_is_hidden():
    grid = grid_of()
    grid = VideoGrid(grid.features, grid.times, grid.frame_mask, importance=torch.rand(2, 8, 4, 4))
    hidden = half_hidden(grid)
    assert torch.equal(build(COMPRESSORS[0]).hide(grid, hidden).importance, grid.importance * ~hidden)


def test_decoder_sees_the_video_through_the_tokens_alone():
    model, a, b = build(COMPRESSORS[1], woken=True), grid_of(seed=0), grid_of(seed=1)
    tokens = model.compressor(a)
    model.compressor.forward = lambda grid, query=None: tokens
    assert torch.equal(model(a).predicted, model(b).predicted)


@pytest.mark.parametrize("reach", [0, 1])
def test_cells_read_windows_within_reach_of_their_own_video(reach):
    model, grid = build(COMPRESSORS[1], woken=True, decoder=replace(SMALL, reach=reach)), grid_of(frames=16)
    features = grid.features.clone()
    features[0, 8:12] = 3.0
    before, after = model(grid).predicted, model(grid.with_features(features)).predicted
    changed = ~torch.isclose(before, after, atol=1e-6).flatten(2).all(-1).view(2, 4, 4).all(-1)
    assert changed[0].tolist() == [False, bool(reach), True, bool(reach)]
    assert not bool(changed[1].any())


@pytest.mark.parametrize(
    "spec", [{"name": "none"}, {"name": "random", "retention": 0.1}, {"name": "uniform", "retention": 0.25}]
)
def test_serves_compressors_without_groups_of_one_size(spec):
    grid = grid_of(frames=7)
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    grid = VideoGrid(grid.features, grid.times, mask)
    model = build(spec, woken=True)
    result = model(grid)
    assert result.predicted.shape == grid.shape
    assert bool(torch.isfinite(result.predicted).all())


def test_padding_frames_do_not_count():
    grid = grid_of(frames=8)
    mask = torch.tensor([[True] * 8, [True] * 4 + [False] * 4])
    padded = VideoGrid(grid.features, grid.times, mask)
    hidden = half_hidden(padded)
    other = padded.with_features(
        torch.where(mask[..., None, None, None], grid.features, torch.full_like(grid.features, 9.0))
    )
    model = build(COMPRESSORS[1], woken=True)
    losses = [reconstruction_loss(model(g, hidden), g, hidden, 0.2) for g in (padded, other)]
    assert torch.equal(*losses)


def test_gradient_reaches_the_compressor_and_the_mask_embedding():
    model, grid = build(COMPRESSORS[1], woken=True), grid_of()
    hidden = half_hidden(grid)
    reconstruction_loss(model(grid, hidden), grid, hidden, 0.2).backward()
    assert float(model.mask_embedding.grad.abs().sum()) > 0
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_sampling_loss_by_hand():
    predicted = torch.tensor([[1.0, 3.0], [0.0, 2.0], [9.0, 9.0]]).view(1, 3, 1, 1, 2).requires_grad_()
    result = Reconstruction(predicted, torch.zeros_like(predicted), None)  # type: ignore[arg-type]
    log_prob = torch.tensor([-1.0, -3.0, -7.0]).view(1, 3, 1, 1).requires_grad_()
    hidden = torch.tensor([True, True, False]).view(1, 3, 1, 1)
    loss = sampling_loss(result, hidden, log_prob)
    assert loss.item() == pytest.approx((1 * 5 + 3 * 2) / 2)  # errors are (1 + 9) / 2 and (0 + 4) / 2
    loss.backward()
    assert log_prob.grad.flatten().tolist() == [-2.5, -1.0, 0.0]
    assert predicted.grad is None


def test_what_the_compressor_sees_of_a_hidden_cell():
    grid = grid_of()
    hidden = torch.zeros(2, 8, 4, 4, dtype=torch.bool)
    hidden[:, 1:3, 0] = True
    for fill, expected in (
        ("embedding", torch.zeros(2, 2, 4, 8)),
        ("previous", grid.features[:, :1, 0].expand(2, 2, 4, 8)),
    ):
        seen = build(COMPRESSORS[0], fill=fill).hide(grid, hidden).features
        assert torch.equal(seen[:, 1:3, 0], expected)
        assert torch.equal(seen[~hidden], grid.features[~hidden])


@pytest.mark.parametrize("bad", [{"target": "pixels"}, {"fill": "noise"}])
def test_unknown_words(bad):
    with pytest.raises(ValueError, match="is not one of"):
        build(COMPRESSORS[0], **bad)
