"""Redundancy in time, in space and in both: which neighbours make a cell redundant."""

import pytest
import torch

from vxl_lightning.maskers.semantic import SemanticMasker, redundancy, redundancy_in_space
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", SemanticMasker)
def test_law(law):
    law()


def axes(rows: list[str]) -> VideoGrid:
    """One frame; cells with one letter are equal, with two letters at right angles."""
    letters = torch.tensor([[ord(c) - ord("a") for c in row] for row in rows])
    return VideoGrid.of(torch.nn.functional.one_hot(letters, 4).float()[None, None])


def test_redundancy_in_space_is_the_mean_over_the_cells_beside_by_hand():
    got = redundancy_in_space(axes(["aab", "acb"]))[0, 0]
    want = torch.tensor([[2 / 2, 1 / 3, 1 / 2], [1 / 2, 0 / 3, 1 / 2]])
    assert torch.allclose(got, want)


@pytest.mark.parametrize(("rows", "want"), [(["a"], [[0.0]]), (["aab"], [[1.0, 0.5, 0.0]])])
def test_frames_of_one_cell_or_row(rows, want):
    assert redundancy_in_space(axes(rows))[0, 0].tolist() == want


def draw(features: torch.Tensor, **params) -> torch.Tensor:
    masker = SemanticMasker(SemanticMasker.Config(temperature=0.0, **params), features.shape[-1])
    return masker(VideoGrid.of(features), torch.Generator()).hidden[0]


def mixed() -> torch.Tensor:
    """``[1, 4, 6, 4, 64]``: rows 0 and 1 stand still, rows 3 and 4 are uniform and change, the others do neither."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 6, 4, 64, generator=generator)
    features[:, :, :2] = features[:, :1, :2]
    features[:, :, 3:5] = torch.randn(1, 4, 1, 1, 64, generator=generator)
    return features


def test_time_hides_what_stands_still_and_space_what_is_uniform():
    assert bool(draw(mixed(), ratio=1 / 3, neighbours="time")[:, :2].all())
    assert bool(draw(mixed(), ratio=1 / 3, neighbours="space")[:, 3:5].all())


def test_both_hides_the_still_and_the_uniform_before_the_rest():
    hidden = draw(mixed(), ratio=2 / 3, neighbours="both").float().mean((0, 2))
    assert float(hidden[[0, 1, 3, 4]].min()) > 0.9


def test_both_is_the_mean_of_the_two():
    grid = VideoGrid.of(mixed())
    score = (redundancy(grid) + redundancy_in_space(grid)) / 2
    least = score.flatten().topk(32).values.min()
    assert torch.equal(draw(mixed(), ratio=1 / 3, neighbours="both"), score[0] >= least)


def test_unknown_neighbours_are_named():
    with pytest.raises(ValueError, match="neighbours='none' is not one of time, space, both"):
        SemanticMasker.Config(neighbours="none")
