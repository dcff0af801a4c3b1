"""Adaptive masking: the sampler's probabilities, its draw, and that what it learns is to show what is hard."""

import pytest
import torch

from vxl_lightning.maskers.adaptive import AdaptiveMasker
from vxl_lightning.models.recot import Reconstruction, sampling_loss
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", AdaptiveMasker)
def test_law(law):
    law()


def make(dim: int = 8, **params) -> AdaptiveMasker:
    torch.manual_seed(0)
    return AdaptiveMasker(AdaptiveMasker.Config(**{"heads": 2, "window": 4, **params}), dim)


def noisy(masker: AdaptiveMasker) -> AdaptiveMasker:
    """As if trained a little: nothing at zero."""
    for p in masker.parameters():
        p.data.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.2)
    return masker


def make_grid(frames: list[int], seed: int = 0) -> VideoGrid:
    t = max(frames)
    features = torch.randn(len(frames), t, 3, 4, 8, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(t)[None] < torch.tensor(frames)[:, None]
    return VideoGrid(features, torch.arange(t).float().expand(len(frames), t), mask)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rebuilt(error: torch.Tensor) -> Reconstruction:
    """A reconstruction with these errors ``[B, T, H, W]``."""
    target = torch.zeros(*error.shape, 1)
    return Reconstruction(error.sqrt()[..., None].requires_grad_(), target, None)  # type: ignore[arg-type]


def test_probabilities_of_a_video_sum_to_1_and_start_uniform():
    grid = make_grid([6, 3])
    log_prob = make()(grid, seeded()).log_prob
    assert torch.allclose(log_prob[0], torch.full((6, 3, 4), 1 / 72).log())
    assert torch.allclose(log_prob[1, :3], torch.full((3, 3, 4), 1 / 36).log())
    trained = noisy(make())(grid, seeded()).log_prob
    assert trained[0].std() > 0.1
    for valid in (trained[0], trained[1, :3]):
        assert float(valid.detach().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_padding_changes_no_probability():
    masker, padded = noisy(make()), make_grid([5, 9])
    alone = VideoGrid(padded.features[:1, :5], padded.times[:1, :5], padded.frame_mask[:1, :5])
    assert torch.allclose(masker(padded, seeded()).log_prob[:1, :5], masker(alone, seeded()).log_prob, atol=1e-5)


def test_frames_of_other_windows_only_share_the_total():
    masker, grid = noisy(make()), make_grid([8])
    other = grid.features.clone()
    other[:, 4:] = 0
    a = masker(grid, seeded()).log_prob[0, :4]
    b = masker(grid.with_features(other), seeded()).log_prob[0, :4]
    assert torch.allclose(a - a.mean(), b - b.mean(), atol=1e-5)


def test_cells_are_shown_in_proportion_to_their_probability():
    masker = noisy(make(ratio=0.98))  # 1 of 48 is shown, so that the first draw is all of it
    grid = make_grid([4])
    shown = torch.stack([~masker(grid, seeded(s)).hidden[0] for s in range(600)]).float().mean(0)
    want = masker(grid, seeded()).log_prob[0].detach().exp()
    assert masker.num_hidden(4, 3, 4) == 47
    assert torch.allclose(shown, want, atol=4 * float((want.max() / 600).sqrt()))
    assert float((shown * want).sum()) > 1.2 / 48


def test_the_gradient_reaches_every_parameter():
    masker, grid = noisy(make()), make_grid([6])
    mask = masker(grid, seeded())
    sampling_loss(rebuilt(torch.rand(1, 6, 3, 4, generator=seeded())), mask.hidden, mask.log_prob).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in masker.parameters())


def test_one_step_shows_badly_rebuilt_cells_more_and_well_rebuilt_ones_less():
    masker, grid = make(), make_grid([4])
    mask = masker(grid, seeded())
    error = (torch.arange(48).view(1, 4, 3, 4) % 2).float()
    sampling_loss(rebuilt(error), mask.hidden, mask.log_prob).backward()
    torch.optim.SGD(masker.parameters(), lr=0.1).step()
    change = (masker(grid, seeded()).log_prob - mask.log_prob)[mask.hidden]
    hard = error[mask.hidden] > 0
    assert change[hard].mean() > 0 > change[~hard].mean()


def test_it_learns_to_show_what_is_hard_to_rebuild():
    masker = make(ratio=0.5)
    optimizer = torch.optim.Adam(masker.parameters(), lr=1e-2)
    hard = torch.zeros(1, 4, 3, 4, dtype=torch.bool)
    for step in range(60):
        grid = make_grid([4], seed=step)
        hard = grid.features[..., 0] > 0  # what decides is in the features
        mask = masker(grid, seeded(step))
        optimizer.zero_grad()
        sampling_loss(rebuilt(hard.float()), mask.hidden, mask.log_prob).backward()
        optimizer.step()
    grid = make_grid([4], seed=1000)
    hard = grid.features[..., 0] > 0
    hidden = torch.stack([masker(grid, seeded(s)).hidden for s in range(20)]).float().mean(0)
    assert hidden[hard].mean() < 0.3 < 0.7 < hidden[~hard].mean()


def test_uncertainty_costs_nothing_while_uniform_and_more_when_certain():
    grid = make_grid([6, 3])
    assert make()(grid, seeded()).aux_loss is None
    assert make(entropy=0.5)(grid, seeded()).aux_loss.item() == pytest.approx(0, abs=1e-5)
    masker = make(entropy=0.5)
    torch.nn.init.constant_(masker.logit.weight, 1.0)
    torch.nn.init.normal_(masker.mlp[3].weight, std=10.0, generator=seeded())
    assert 0.1 < masker(grid, seeded()).aux_loss.item() <= 0.5


def test_heads_that_do_not_divide_the_channels_are_named():
    with pytest.raises(ValueError, match="heads=8 must divide the 12 channels of a cell; 6 does"):
        AdaptiveMasker(AdaptiveMasker.Config(), 12)


@pytest.mark.parametrize("bad", [{"heads": 0}, {"window": 0}, {"entropy": -1.0}])
def test_bad_values_are_named(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        AdaptiveMasker.Config(**bad)
