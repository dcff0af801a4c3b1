"""SlowFast: the paper's counts, its two paths by hand, and which token carries a cell that went into two."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vxl_lightning.compressors.pool import Pool
from vxl_lightning.compressors.slow_fast import SlowFast
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", SlowFast)
def test_law(law: Callable[[], None]) -> None:
    law()


def build(dim: int = 3, **params: Any) -> SlowFast:
    return SlowFast(SlowFast.Config(**params), dim=dim)


def grid(frames: int, size: int, dim: int = 3) -> VideoGrid:
    return VideoGrid.of(torch.randn(1, frames, size, size, dim, generator=torch.Generator().manual_seed(0)))


def test_defaults_are_the_papers_counts() -> None:
    module = build()
    assert module.num_tokens(50, 24, 24) == 10 * 24 * 12 + 50 * 16 == 3680
    assert module.slow_frames(50).tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]


def test_the_paths_are_maxima_of_two_neighbours_and_means_of_sixteenths() -> None:
    video = grid(10, 24)
    tokens = build()(video)
    frames = video.features[0].permute(0, 3, 1, 2)
    slow = F.max_pool2d(frames[[0, 5]], (1, 2)).flatten(2).mT
    fast = F.avg_pool2d(frames, 6).flatten(2).mT
    begin = 0
    for frame in range(10):
        if frame in (0, 5):
            torch.testing.assert_close(tokens.features[begin : begin + 288], slow[frame // 5])
            begin += 288
        torch.testing.assert_close(tokens.features[begin : begin + 16], fast[frame], atol=1e-6, rtol=1e-5)
        begin += 16
    assert begin == len(tokens.features)


def test_a_slow_frames_cells_are_carried_by_slow_tokens_but_for_one_a_fast_token() -> None:
    tokens = build()(grid(5, 24))  # frame 0 is the slow one: tokens 0..287 are slow, 288..303 its fast ones
    source, weight = tokens.source[0, 0], tokens.weight
    assert weight[304:].eq(36).all(), "elsewhere a fast token carries its 6x6 block"
    assert weight[288:304].eq(1).all(), "a fast token of the slow frame takes one cell"
    assert weight[:288].sum() == 576 - 16 and weight[:288].min() == 1
    for k in range(16):
        row, col = (source == 288 + k).nonzero()[0].tolist()
        assert (row // 6, col // 6) == (k // 4, k % 4), "and that is one of its own block"


def test_uncompressed_slow_frames_leave_the_fast_tokens_a_cell_of_the_next_frame() -> None:
    module = build(slow="none", retention=0.25 + 1 / 16, slow_share=0.8, slow_rate=0.25)
    tokens = module(grid(4, 4))
    assert tokens.lengths.tolist() == [16 + 4]
    assert tokens.weight.tolist() == [1.0] * 16 + [1.0, 15.0, 16.0, 16.0]
    assert tokens.source[0, 1, 0, :2].tolist() == [17, 16], "the first cell that its carrier can spare"


def test_fast_tokens_see_the_slow_frames_too() -> None:
    video = grid(4, 4)
    fast = {"name": "pool", "frames_per_group": 4}
    tokens = build(retention=5 / 64, slow_share=4 / 5, slow_rate=1 / 4, fast=fast)(video)
    whole = Pool(Pool.Config(retention=1 / 64, frames_per_group=4), dim=3)(video)
    assert torch.equal(tokens.features[4], whole.features[0]), "the mean of all four frames"
    assert tokens.weight.tolist() == [4.0, 4.0, 4.0, 4.0, 48.0]


def test_traits_are_those_of_the_paths() -> None:
    assert not build().trainable
    assert build(fast="dts").trainable


def test_a_retention_no_path_can_meet_names_one_that_works() -> None:
    with pytest.raises(ValueError, match=r"the slow path gets .* retention=0\.0625") as refused:
        build(retention=1 / 16).num_tokens(50, 24, 24)
    message = str(refused.value)
    assert "Nearest that works: retention=" in message
    offered = message.split("Nearest that works: retention=")[1]
    retention, share = (float(x) for x in offered.split(" with slow_share="))
    assert abs(retention - 1 / 16) < 0.005
    module = build(retention=retention, slow_share=share)
    assert module.num_tokens(50, 24, 24) == round(retention * 50 * 576)
    assert len(module(grid(50, 24)).features) == round(retention * 50 * 576)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"slow_share": 1.0}, r"slow_share=1.0 is not in \(0, 1\)"),
        ({"slow_rate": 0.0}, r"slow_rate=0.0 is not in \(0, 1\]"),
        ({"slow": 3}, "slow_fast.slow=3 is neither a name nor a mapping"),
        ({"fast": {"name": "pool", "retention": 0.5}}, "slow_fast.fast states retention=0.5"),
        ({"retention": 0.5}, "allowed is a slow_share up to 0.4"),
        ({"slow": "poool"}, "did you mean 'pool'"),
    ],
)
def test_refusals_name_the_way_out(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**params)


def test_it_says_which_plugins_it_is_made_of() -> None:
    assert SlowFast.Config(slow="none", fast={"name": "pool"}, slow_share=0.1).parts == ["none", {"name": "pool"}]
