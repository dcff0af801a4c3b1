"""Hierarchical masking: whole interiors between key frames, key frames only when those do not suffice."""

from itertools import groupby, pairwise

import pytest
import torch

from vxl_lightning.maskers.hierarchical import HierarchicalMasker, depths
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", HierarchicalMasker)
def test_law(law):
    law()


def draw(frames: int = 33, seed: int = 0, **params) -> torch.Tensor:
    """``[T]`` the share of each frame that is hidden."""
    masker = HierarchicalMasker(HierarchicalMasker.Config(**params), 2)
    grid = VideoGrid.of(torch.zeros(1, frames, 2, 5, 2))
    return masker(grid, torch.Generator().manual_seed(seed)).hidden[0].float().mean((1, 2))


def runs(hidden: torch.Tensor) -> list[int]:
    """Lengths of the stretches of frames that are hidden, whole or in part."""
    return [len(list(group)) for touched, group in groupby((hidden > 0).tolist()) if touched]


def test_depths_of_a_short_video_by_hand():
    # Strides 2 and 4 from frame 1: level 2 at 1, 5, 9; level 1 at 3, 7; the ends above all.
    assert depths(10, 2, 2, 1).tolist() == [3, 2, 0, 1, 0, 2, 0, 1, 0, 3]


@pytest.mark.parametrize("seed", range(8))
def test_frames_are_hidden_whole_and_one_in_part(seed):
    hidden = draw(seed=seed, ratio=0.4)
    assert int(((hidden > 0) & (hidden < 1)).sum()) <= 1
    assert hidden[0] == hidden[-1] == 0


@pytest.mark.parametrize(("level", "length"), [(1, 1), (2, 3), (3, 7)])
def test_a_level_hides_interiors_of_its_own_length(level, length):
    for seed in range(8):
        found = runs(draw(65, seed=seed, ratio=0.3, branch=2, level=level))
        assert max(found) == length
        # All but the last one begun, and those that the ends cut, are whole.
        assert sum(n != length for n in found) <= 3


def test_key_frames_are_hidden_only_when_all_interiors_are():
    hidden = draw(33, ratio=0.8, branch=2, level=1)
    visible = (hidden == 0).nonzero().flatten().tolist()
    assert {0, 32} <= set(visible)
    assert len(visible) == 6  # 33 - 26.4, and one in part
    # Key frames of coarser levels outlast those of finer ones: what stays is spread, not gathered.
    assert max(b - a for a, b in pairwise(visible)) <= 16


def test_the_level_is_drawn_among_those_that_fit():
    longest = {max(runs(draw(64, seed=s, ratio=0.3, branch=4))) for s in range(30)}
    assert {3, 15} <= longest
    assert max(longest) == 15


def test_a_level_that_does_not_fit_is_the_coarsest_that_does():
    wide, fit = (draw(10, seed=3, ratio=0.3, branch=2, level=level) for level in (9, 3))
    assert torch.equal(wide, fit)


def test_key_frames_are_counted_from_a_drawn_frame():
    assert len({draw(33, seed=s, ratio=0.7, branch=4, level=1).numpy().tobytes() for s in range(10)}) > 4


@pytest.mark.parametrize("bad", [{"branch": 1}, {"level": 0}])
def test_bad_values_are_named(bad):
    key, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{key}={value} must be at least"):
        HierarchicalMasker.Config(**bad)
