"""Multi-block masking: geometry of the blocks, full extent in time, and how the exact count is met."""

import pytest
import torch

from vxl_lightning.maskers.multi_block import MultiBlockMasker, block_size
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("masker", MultiBlockMasker)
def test_law(law):
    law()


def draw(shape: tuple[int, int, int] = (6, 14, 14), seed: int = 0, **params) -> torch.Tensor:
    masker = MultiBlockMasker(MultiBlockMasker.Config(**params), 2)
    return masker(VideoGrid.of(torch.zeros(1, *shape, 2)), torch.Generator().manual_seed(seed)).hidden[0]


@pytest.mark.parametrize(
    ("scale", "aspect", "want"),
    [
        (0.15, 1.0, (6, 6)),  # int(16 * 16 * .15) = 38, sqrt = 6.16
        (0.15, 1.5, (8, 5)),  # sqrt(57) = 7.55, sqrt(25.3) = 5.03
        (0.70, 0.75, (12, 15)),  # int(179.2) = 179: sqrt(134.25) = 11.6, sqrt(238.7) = 15.4
        (0.70, 1.5, (16, 11)),  # sqrt(268.5) = 16.4, cut to the frame
    ],
)
def test_a_block_covers_its_share_at_its_aspect(scale, aspect, want):
    assert block_size(16, 16, scale, aspect) == want


def test_a_block_is_never_empty():
    assert block_size(2, 2, 0.15, 1.0) == (1, 1)


def test_blocks_last_through_the_whole_video():
    hidden = draw(ratio=0.5)
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))


def test_a_count_that_frames_do_not_divide_hides_one_more_place_in_the_earliest():
    hidden = draw((4, 5, 5), ratio=0.5)  # 50 of 100 cells: 12 places, and one more in two frames
    assert hidden.sum((1, 2)).tolist() == [13, 13, 12, 12]
    assert bool((hidden[3] <= hidden[0]).all())


@pytest.mark.parametrize("seed", range(10))
def test_one_long_block_alone_is_trimmed_to_a_block_around_its_middle(seed):
    hidden = draw((1, 16, 16), seed=seed, ratio=0.25, blocks="long")[0]
    rows, columns = hidden.any(1).nonzero(), hidden.any(0).nonzero()
    extent = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
    assert 64 <= extent[0] * extent[1] <= 100  # 64 places in a box of nearly that size
    assert 0.6 < extent[0] / extent[1] < 1.8


def test_blocks_that_cover_too_little_are_joined_by_further_ones():
    assert int(draw((1, 16, 16), ratio=0.99, blocks="short").sum()) == 253


def solid(**params) -> list[float]:
    """The share of the smallest box around the hidden places that is hidden, for 30 draws."""
    shares = []
    for seed in range(30):
        frame = draw((1, 14, 14), seed=seed, ratio=0.5, **params)[0]
        box = int((frame.any(1)[:, None] & frame.any(0)).sum())
        shares.append(int(frame.sum()) / box)
    return shares


def test_half_a_frame_is_one_solid_long_block_or_several_short_ones_apart():
    long, short = torch.tensor(solid(blocks="long")), torch.tensor(solid(blocks="short"))
    assert long.min() > 0.8 and long.mean() > 0.9
    assert short.min() < 0.7 and short.mean() < 0.8


def test_either_draws_both_kinds():
    long = [share > 0.8 for share in solid(blocks="either")]
    assert 5 < sum(long) < 25


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="blocks='middle' is not one of short, long, either"):
        MultiBlockMasker.Config(blocks="middle")
