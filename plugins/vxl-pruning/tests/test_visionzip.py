"""VisionZip: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from vxl_pruning.visionzip import VisionZip, contextual_tokens

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid, VideoTokens


@parametrize_laws("compressor", VisionZip)
def test_law(law: Callable[[], None]) -> None:
    law()


def compress(features: Tensor, importance: Tensor, **config: float) -> VideoTokens:
    compressor = VisionZip(VisionZip.Config(**config), dim=features.shape[-1])
    return compressor(VideoGrid.of(features[None], importance=importance[None]))


@pytest.mark.parametrize(("retention", "dominant", "contextual"), [(64 / 576, 54, 10), (192 / 576, 162, 30)])
def test_the_published_budgets(retention: float, dominant: int, contextual: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(1, 24, 24, 8, generator=generator), torch.rand(1, 24, 24, generator=generator)
    tokens = compress(features, importance, retention=retention)
    assert len(tokens.features) == dominant + contextual
    top = importance.flatten().topk(dominant).indices.sort().values
    torch.testing.assert_close(tokens.features[:dominant], features.flatten(0, 2)[top], rtol=0, atol=0)
    assert (tokens.source >= 0).all(), "what is not dominant is in a contextual token"
    assert tokens.weight[:dominant].eq(1).all() and int(tokens.weight[dominant:].sum()) == 576 - dominant


def test_an_anchor_is_added_to_the_mean_of_those_like_it() -> None:
    """Six cells and two anchors: the anchors are the first and the fourth."""
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    cells = torch.stack([east, 3 * east, 2 * north, north, 5 * east, 4 * north])[None]
    tokens, carrier = contextual_tokens(cells, 2)
    assert carrier.tolist() == [[0, 0, 1, 1, 0, 1]]
    torch.testing.assert_close(tokens, torch.stack([east * (1 + 4), north * (1 + 3)])[None])


def test_anchors_are_evenly_spaced_from_the_first() -> None:
    """Of seven cells and three anchors every second: 0, 2 and 4; the last two cells are none."""
    cells = torch.eye(7)[None]
    tokens, carrier = contextual_tokens(cells, 3)
    assert carrier[0, [0, 2, 4]].tolist() == [0, 1, 2]
    assert carrier[0, [1, 3, 5, 6]].tolist() == [0, 0, 0, 0], "alike to all, they go to the first"
    torch.testing.assert_close(tokens[0, 1], cells[0, 2], msg="and an anchor that gets nothing stays itself")


def test_as_many_anchors_as_cells_change_nothing() -> None:
    cells = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    tokens, carrier = contextual_tokens(cells, 5)
    torch.testing.assert_close(tokens, cells, rtol=0, atol=0)
    assert carrier.tolist() == [list(range(5))] * 2


def test_of_equal_anchors_the_first_takes_all() -> None:
    cells = torch.randn(1, 40, 33, generator=torch.Generator().manual_seed(0))
    cells[:, ::4] = cells[:, :1]
    _, carrier = contextual_tokens(cells, 10)
    assert carrier[0].view(10, 4)[:, 1:].eq(0).all()


def test_a_frame_knows_nothing_of_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(3, 4, 4, 8, generator=generator), torch.rand(3, 4, 4, generator=generator)
    whole = compress(features, importance, retention=1 / 2, dominant_share=0.5)
    for frame in range(3):
        alone = compress(features[frame, None], importance[frame, None], retention=1 / 2, dominant_share=0.5)
        torch.testing.assert_close(whole.features[8 * frame : 8 * frame + 8], alone.features)


def test_dominant_cells_only() -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(2, 4, 4, 8, generator=generator), torch.rand(2, 4, 4, generator=generator)
    tokens = compress(features, importance, retention=1 / 4, dominant_share=1.0)
    torch.testing.assert_close(tokens.features, features[tokens.source[0] >= 0], rtol=0, atol=0)


def test_an_impossible_share_is_named() -> None:
    with pytest.raises(ValueError, match=r"dominant_share=1\.2"):
        VisionZip.Config(dominant_share=1.2)
