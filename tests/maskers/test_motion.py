"""Motion-guided masking: what is hidden stays hidden while it moves."""

import pytest
import torch

from vxl_lightning.maskers.motion import MotionMasker, carry, origins
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", MotionMasker)
def test_law(law):
    law()


def content(frames: int, height: int = 4, width: int = 6) -> torch.Tensor:
    """``[1, T, H, W, D]`` one random picture, still."""
    picture = torch.randn(height, width, 8, generator=torch.Generator().manual_seed(0))
    return picture.expand(1, frames, height, width, 8).clone()


def panning(frames: int) -> torch.Tensor:
    """A camera that moves one column to the left each frame: what was in column x is in column x + 1."""
    picture = torch.randn(4, 6 + frames, 8, generator=torch.Generator().manual_seed(0))
    return torch.stack([picture[:, frames - t : frames - t + 6] for t in range(frames)])[None]


def draw(features: torch.Tensor, seed: int = 0, motion: torch.Tensor | None = None, **params) -> torch.Tensor:
    masker = MotionMasker(MotionMasker.Config(**params), features.shape[-1])
    return masker(VideoGrid.of(features, motion=motion), torch.Generator().manual_seed(seed)).hidden[0]


def test_a_still_video_is_hidden_in_tubes():
    hidden = draw(content(5), ratio=0.5)
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))


def test_what_is_hidden_moves_with_the_picture():
    def agreement(reach: int) -> float:
        """The share of cells that stay hidden, or visible, as the picture moves by three columns."""
        hidden = draw(panning(7), ratio=0.5, reach=reach)
        return float((hidden[6][:, 3:] == hidden[3][:, :-3]).float().mean())

    # What enters the picture shifts the count between a few cells at most.
    assert agreement(reach=1) > 0.85
    assert agreement(reach=0) < 0.7


def test_nothing_is_followed_with_reach_0():
    hidden = draw(panning(5), ratio=0.5, reach=0)
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))


def test_origins_of_a_panning_video():
    place = torch.arange(24).view(4, 6)
    origin = origins(panning(3)[0], base=1, reach=2).view(3, 4, 6)
    assert torch.equal(origin[1], place)
    assert torch.equal(origin[2][:, 1:], place[:, :-1])
    assert torch.equal(origin[0][:, :-1], place[:, 1:])


def test_equal_cells_came_from_the_nearest_which_is_their_own_place():
    assert torch.equal(origins(torch.ones(3, 4, 6, 8), base=0, reach=2), torch.arange(24).expand(3, 24))


def test_values_are_carried_away_from_the_base_by_hand():
    origin = torch.tensor([[1, 1], [0, 1], [0, 0]])
    assert carry(torch.tensor([5.0, 7.0]), origin, base=1).tolist() == [[7, 7], [5, 7], [5, 5]]


def test_every_frame_hides_equally_many():
    features = torch.randn(1, 7, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    counts = draw(features, ratio=0.6).sum((1, 2)).tolist()  # 101 of 168 cells
    assert counts == [15, 15, 15, 14, 14, 14, 14]


def often_visible(**kwargs) -> torch.Tensor:
    """``[H, W]`` how often a place of a still video is visible when row 0 is said to move."""
    motion = torch.zeros(1, 3, 4, 6)
    motion[:, :, 0] = 1
    draws = [draw(content(3), seed=s, motion=motion, ratio=0.75, **kwargs)[0] for s in range(200)]
    return 1 - torch.stack(draws).float().mean(0)


def test_moving_places_are_rather_visible_by_the_motion_that_the_grid_carries():
    # Mean motion 1/4: moving places weigh 5, still ones 1.
    visible = often_visible()
    assert visible[0].mean() > 2 * visible[1:].mean()


def test_without_preference_places_are_drawn_uniformly():
    visible = often_visible(preference=0.0)
    assert visible[0].mean() == pytest.approx(0.25, abs=0.06)


def test_without_motion_the_change_of_features_counts():
    features = content(3)
    features[0, :, 0] = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(2))
    base = torch.stack([draw(features, seed=s, ratio=0.75, preference=2.0)[1] for s in range(100)]).float()
    assert base[:, 0].mean() < 0.6 * base[:, 1:].mean()


@pytest.mark.parametrize("bad", [{"reach": -1}, {"preference": -1.0}])
def test_bad_values_are_named(bad):
    key, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{key}={value} must not be negative"):
        MotionMasker.Config(**bad)
