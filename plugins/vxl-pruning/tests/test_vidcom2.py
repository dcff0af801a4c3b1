"""VidCom2: the kit's laws, and what the method itself promises."""

import math
from collections.abc import Callable

import pytest
import torch
from vxl_pruning.ranking import apportion, ranks
from vxl_pruning.vidcom2 import VidCom2, frame_shares, similarities

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", VidCom2)
def test_law(law: Callable[[], None]) -> None:
    law()


def kept(features: torch.Tensor, **config: float) -> torch.Tensor:
    """``[T, H, W]`` bool."""
    compressor = VidCom2(VidCom2.Config(**config), dim=features.shape[-1])
    return compressor(VideoGrid.of(features[None])).source[0] >= 0


def test_the_odd_cell_of_a_frame_is_kept() -> None:
    features = torch.zeros(2, 2, 2, 4)
    features[..., 0] = 1.0
    features[0, 1, 0] = features[1, 0, 1] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    keep = kept(features, retention=1 / 4, channel_share=1.0)
    assert keep.nonzero().tolist() == [[0, 1, 0], [1, 0, 1]]


def test_the_odd_frame_gets_the_tokens() -> None:
    """A frame far from the others has p = 1: of 9 tokens over 3 frames, 3 * (2 - 1/3) are its, 3 * 2/3 each other's."""
    features = torch.zeros(3, 2, 4, 4)
    features[..., 0] = 1.0
    features[2] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    keep = kept(features, retention=3 / 8, channel_share=1.0)
    assert keep.sum((1, 2)).tolist() == [2, 2, 5]


def test_similarity_is_a_sum_of_five_gaussians_of_the_steadiest_channels() -> None:
    """Channel 2 swings most and is left out; the others hold (1, 0), (0, 1), whose mean is (1/2, 1/2)."""
    cells = torch.tensor([[[1.0, 0.0, 9.0], [0.0, 1.0, -9.0]]])
    to_video, to_frame = similarities(cells, channel_share=2 / 3)
    want = sum(math.exp(-0.5 / (2 * scale)) for scale in (0.125, 0.25, 0.5, 1, 2))
    torch.testing.assert_close(to_video, torch.full((1, 2), want))
    torch.testing.assert_close(to_frame, to_video)


def test_frame_shares_are_a_softmax_about_the_even_share() -> None:
    shares = frame_shares(torch.tensor([0.0, 0.01 * math.log(3)]), temperature=0.01)
    torch.testing.assert_close(shares, torch.tensor([(1 + 0.25 - 0.5) / 2, (1 + 0.75 - 0.5) / 2]))


@pytest.mark.parametrize(
    ("quota", "count", "most", "want"),
    [
        ([2.5, 2.5], 5, 4, [3, 2]),
        ([2.2, 0.9, 0.9], 4, 4, [2, 1, 1]),
        ([5.0, 1.0, 1.0], 7, 3, [3, 2, 2]),  # two cannot be placed in the first; they go to the others evenly
        ([1.5, 0.5], 2, 4, [1, 1]),  # none is left without
        ([8 / 3, 20 / 3, 8 / 3], 12, 8, [3, 7, 2]),  # equal remainders are equal whatever stands before the point
        ([0.9, 0.1, 0.5, 0.5], 2, 4, [1, 0, 1, 0]),  # unless there are too few
    ],
)
def test_shares_become_whole_tokens(quota: list[float], count: int, most: int, want: list[int]) -> None:
    assert apportion(torch.tensor(quota), count, most).tolist() == want


def test_ranks_put_the_earliest_first_among_equals() -> None:
    assert ranks(torch.tensor([[1.0, 3.0, 3.0, 2.0]])).tolist() == [[3, 0, 1, 2]]


@pytest.mark.parametrize("retention", [0.013, 0.1, 0.33, 0.77, 1.0])
def test_the_budget_of_a_video_is_exact(retention: float) -> None:
    features = torch.randn(7, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    assert int(kept(features, retention=retention).sum()) == int(7 * 15 * retention + 0.5)


def test_equal_frames_keep_the_same_cells() -> None:
    frame = torch.randn(1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    keep = kept(frame.expand(8, 4, 4, 16), retention=1 / 4)
    assert (keep == keep[:1]).all()


def test_kept_cells_are_unchanged_and_in_order() -> None:
    features = torch.randn(1, 4, 3, 3, 8, generator=torch.Generator().manual_seed(0))
    tokens = VidCom2(VidCom2.Config(), dim=8)(VideoGrid.of(features))
    torch.testing.assert_close(tokens.features, features[tokens.source >= 0], rtol=0, atol=0)


@pytest.mark.parametrize("bad", [{"channel_share": 0.0}, {"channel_share": 1.5}, {"temperature": 0.0}])
def test_impossible_parameters_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        VidCom2.Config(**bad)
