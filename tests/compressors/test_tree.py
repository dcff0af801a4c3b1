"""The budget tree: which frames are a level's, how many tokens they get, and that a token is the mean of its cells."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vxl_lightning.compressors.tree import Tree, level_tokens
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", Tree)
def test_law(law: Callable[[], None]) -> None:
    law()


def build(dim: int = 3, **params: Any) -> Tree:
    return Tree(Tree.Config(**params), dim=dim)


def test_the_frames_of_each_level() -> None:
    tree = build(branch=3, levels=2)
    assert [tree.level_frames(level) for level in range(2)] == [[0, 3, 6], [1, 2, 4, 5, 7, 8]]
    tree = build(branch=2, levels=3)
    assert [tree.level_frames(level) for level in range(3)] == [[0, 4], [2, 6], [1, 3, 5, 7]]


def test_every_level_gets_the_same_tokens_where_grids_allow() -> None:
    tree = build(retention=1 / 16)
    assert tree.grids(24, 24) == [(8, 9), (4, 6)]
    assert tree.tokens_per_group(24, 24) == 16 * 576 // 16 == 4 * 72 + 12 * 24


def test_the_nearest_to_equal_is_taken_where_they_do_not() -> None:
    # 2 key frames, 2 and 4 between them, 24 tokens: 8 a level is 4 a key frame, 4, and 2.
    assert level_tokens(24, (2, 2, 4), 4, 4) == (4, 4, 2)
    # 22: levels of 8, 6 and 8 tokens, or 10 (no grid of 4x4 has 5 cells), or 12, 6 and 4 and so on.
    assert level_tokens(22, (2, 2, 4), 4, 4) == (4, 3, 2)
    assert level_tokens(8, (2, 2, 4), 4, 4) == (1, 1, 1)
    assert level_tokens(7, (2, 2, 4), 4, 4) is None
    assert level_tokens(8 * 16, (2, 2, 4), 4, 4) == (16, 16, 16)


def test_a_token_is_the_mean_of_its_block_of_its_frame_in_the_order_of_frames() -> None:
    features = torch.randn(1, 32, 8, 6, 3, generator=torch.Generator().manual_seed(0))
    tree = build(retention=1 / 8)
    assert tree.grids(8, 6) == [(4, 3), (2, 2)]
    tokens = tree(VideoGrid.of(features))
    frames = features[0].permute(0, 3, 1, 2)
    want = [F.adaptive_avg_pool2d(frames[f], (2, 2) if f % 4 else (4, 3)).flatten(1).mT for f in range(32)]
    torch.testing.assert_close(tokens.features, torch.cat(want))
    assert tokens.position[:, 0].tolist() == [float(f) for f in range(32) for _ in range(4 if f % 4 else 12)]


def test_a_segment_does_not_depend_on_the_length_of_the_video() -> None:
    features = torch.randn(1, 48, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    tree = build(retention=1 / 8)
    whole, part = tree(VideoGrid.of(features)), tree(VideoGrid.of(features[:, :16]))
    assert torch.equal(whole.features[: len(part.features)], part.features)


def test_retentions_without_grids_name_the_nearest_that_have_some() -> None:
    with pytest.raises(ValueError, match=r"asks for 26 tokens .* nearest that do: 0\.078125, 0\.09375, 0\.109375"):
        build(retention=26 / 256).tokens_per_group(4, 4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"branch": 1}, "branch=1 must be at least 2"),
        ({"levels": 5}, "levels=5 is not in 1..4"),
        ({"retention": 2.0}, "retention=2.0 is not in"),
    ],
)
def test_refusals_name_the_way_out(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**params)
