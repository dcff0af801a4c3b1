"""Masking by attention: what the encoder attends to stays visible, or is hidden."""

import pytest
import torch

from vxl_lightning.maskers.attention import AttentionMasker
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", AttentionMasker)
def test_law(law):
    law()


def draw(importance: torch.Tensor, seed: int = 0, **params) -> torch.Tensor:
    """``[T, H, W]`` what is hidden of a video with this importance ``[T, H, W]``."""
    masker = AttentionMasker(AttentionMasker.Config(**params), 2)
    grid = VideoGrid.of(torch.zeros(1, *importance.shape, 2), importance=importance[None])
    return masker(grid, torch.Generator().manual_seed(seed)).hidden[0]


RAMP = torch.arange(1.0, 9.0).view(2, 2, 2)


def test_without_chance_the_least_attended_are_hidden():
    assert torch.equal(draw(RAMP, temperature=0.0), RAMP <= 4)


def test_or_the_most_attended():
    assert torch.equal(draw(RAMP, temperature=0.0, hide="important"), RAMP > 4)


@pytest.mark.parametrize("hide", ["unimportant", "important"])
def test_at_temperature_1_the_first_draw_is_in_proportion_to_attention(hide):
    # One cell is shown (or hidden), so the first draw is all there is; attention sums to 36.
    ratio = 7 / 8 if hide == "unimportant" else 1 / 8
    hidden = torch.stack([draw(RAMP, seed=s, ratio=ratio, hide=hide) for s in range(1500)]).float().mean(0)
    drawn = 1 - hidden if hide == "unimportant" else hidden
    assert torch.allclose(drawn, RAMP / 36, atol=0.035)


def test_a_scale_of_the_attention_changes_nothing():
    assert torch.equal(draw(RAMP, seed=3), draw(1e-4 * RAMP, seed=3))


def test_cells_without_attention_are_drawn_among_themselves():
    importance = torch.zeros(1, 4, 4)
    importance[0, 0, 0] = 1
    hidden = torch.stack([draw(importance, seed=s, ratio=0.5)[0] for s in range(50)]).float().mean(0)
    assert hidden[0, 0] == 0
    assert bool((hidden.flatten()[1:] > 0.2).all() and (hidden.flatten()[1:] < 0.9).all())


@pytest.mark.parametrize("bad", [{"hide": "all"}, {"temperature": -1.0}])
def test_bad_values_are_named(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        AttentionMasker.Config(**bad)
