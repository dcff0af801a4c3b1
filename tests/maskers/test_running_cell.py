"""Running cells: the pattern of the paper at quarters, an exact count between them."""

import pytest
import torch

from vxl_lightning.maskers.running_cell import RunningCellMasker
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", RunningCellMasker, params=[{"ratio": r} for r in (0.25, 0.5, 0.6, 0.9)])
def test_law(law):
    law()


def draw(ratio: float, shape: tuple[int, int, int] = (8, 4, 6), seed: int = 0) -> torch.Tensor:
    masker = RunningCellMasker(RunningCellMasker.Config(ratio=ratio), 2)
    return masker(VideoGrid.of(torch.zeros(1, *shape, 2)), torch.Generator().manual_seed(seed)).hidden[0]


def test_at_one_half_two_neighbouring_slots_are_hidden_and_run_on():
    # Slots 0 1 / 2 3 of a cell; hidden are those whose turn is 0 or 1, and turns grow by one each frame.
    cycle = ["1100", "1001", "0011", "0110"]  # slot 0..3, for start + t = 0, 1, 2, 3
    want = [torch.tensor([int(c) for c in row]).bool().view(2, 2) for row in cycle]
    hidden = draw(0.5, (8, 2, 2))
    start = next(i for i, w in enumerate(want) if torch.equal(hidden[0], w))
    assert all(torch.equal(hidden[t], want[(start + t) % 4]) for t in range(8))


def test_all_cells_of_a_frame_hide_the_same_slots():
    hidden = draw(0.75)
    assert torch.equal(hidden, hidden[:, :2, :2].repeat(1, 2, 3))
    assert not torch.equal(hidden[0], hidden[1])


def test_in_four_frames_every_place_is_hidden_equally_often():
    hidden = draw(0.75)
    assert torch.equal(hidden[:4].sum(0), torch.full((4, 6), 3))
    assert torch.equal(hidden[3:7].sum(0), torch.full((4, 6), 3))


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.6, 0.5, 0.75), (0.9, 0.75, 1.0)])
def test_between_quarters_the_pattern_lies_between_those_of_the_quarters(ratio, low, high):
    hidden = draw(ratio)
    assert int(hidden.sum()) == round(ratio * hidden.numel())
    assert bool((draw(low) <= hidden).all())
    if high < 1:
        assert bool((hidden <= draw(high)).all())
    assert hidden.float().mean((1, 2)).std() < 0.1  # not gathered in the first frames


def test_starts_are_drawn():
    assert len({draw(0.5, seed=s).numpy().tobytes() for s in range(20)}) == 4


def test_odd_sides_cut_the_last_cells():
    hidden = draw(0.5, (4, 3, 5))
    assert int(hidden.sum()) == 30
    assert torch.equal(hidden[:, :2, 4], hidden[:, :2, 0])
