"""The currency: shapes are checked, packing and joining lose nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vxl_lightning.tokens import VideoGrid, VideoTokens, concat_time


def random_tokens(b: int, t: int, h: int, w: int, seed: int) -> tuple[VideoGrid, VideoTokens]:
    """Tokens from a random partition of every video's cells, some dropped."""
    g = torch.Generator().manual_seed(seed)
    grid = VideoGrid.of(torch.randn(b, t, h, w, 3, generator=g))
    lengths = torch.randint(1, t * h * w + 1, (b,), generator=g)
    source = torch.full((b, t * h * w), -1)
    for i, n in enumerate(lengths.tolist()):
        cells = torch.randperm(t * h * w, generator=g)
        source[i, cells[:n]] = torch.arange(n)
        for c in cells[n:].tolist():
            source[i, c] = int(torch.randint(-1, n, (), generator=g))
    features = torch.randn(int(lengths.sum()), 3, generator=g)
    return grid, VideoTokens.carry(features, lengths, source.view(b, t, h, w), grid)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_weight_position_and_span_follow_from_the_cells(b: int, t: int, h: int, w: int, seed: int) -> None:
    grid, tokens = random_tokens(b, t, h, w, seed)
    assert tokens.weight.sum() == (tokens.source >= 0).sum()
    for i in range(b):
        for k in range(int(tokens.lengths[i])):
            cells = (tokens.source[i] == k).nonzero().float()
            n = int(tokens.offsets[i]) + k
            assert torch.allclose(tokens.position[n], cells.mean(0), atol=1e-5)
            seconds = grid.times[i][cells[:, 0].long()]
            assert tokens.span[n].tolist() == [seconds.min(), seconds.max()]
            assert tokens.weight[n] == len(cells)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_select_keeps_what_it_is_told_and_drops_the_rest(b: int, t: int, seed: int) -> None:
    _, tokens = random_tokens(b, t, 2, 2, seed)
    keep = torch.rand(len(tokens.features), generator=torch.Generator().manual_seed(seed)) > 0.5
    chosen = tokens.select(keep)
    assert torch.equal(chosen.features, tokens.features[keep])
    assert torch.equal(chosen.weight, tokens.weight[keep])
    assert int(chosen.lengths.sum()) == int(keep.sum())


def test_concat_time_shifts_frames_and_tokens() -> None:
    _, a = random_tokens(2, 2, 2, 2, 1)
    _, b = random_tokens(2, 3, 2, 2, 2)
    both = concat_time([a, b])
    assert both.lengths.tolist() == (a.lengths + b.lengths).tolist()
    assert both.source.shape == (2, 5, 2, 2)
    for i in range(2):
        assert torch.equal(both.per_video()[i], torch.cat([a.per_video()[i], b.per_video()[i]]))
        late = both.source[i, 2:]
        assert torch.equal(torch.where(late >= 0, late - a.lengths[i], late), b.source[i])
    first_late = both.position[int(a.lengths[0])]
    assert torch.equal(first_late, b.position[0] + torch.tensor([2.0, 0, 0]))


def test_padded_marks_the_real_tokens() -> None:
    _, tokens = random_tokens(3, 2, 2, 2, 5)
    features, mask = tokens.padded()
    assert torch.equal(features[mask], tokens.features)
    assert mask.sum(1).tolist() == tokens.lengths.tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"features": torch.zeros(2, 3, 4, 5)}, "B,T,H,W,D"),
        ({"features": torch.zeros(2, 3, 4, 4, 5, dtype=torch.uint8)}, "floating point"),
        ({"times": torch.zeros(2, 2)}, "times"),
        ({"frame_mask": torch.ones(2, 3)}, "bool"),
        ({"importance": torch.ones(2, 3)}, "importance"),
    ],
)
def test_wrong_shapes_are_refused(change: dict[str, torch.Tensor], expected: str) -> None:
    good = {
        "features": torch.zeros(2, 3, 4, 4, 5),
        "times": torch.zeros(2, 3),
        "frame_mask": torch.ones(2, 3, dtype=torch.bool),
    }
    VideoGrid(**good)
    with pytest.raises(ValueError, match=expected):
        VideoGrid(**{**good, **change})


def test_check_finds_nan_and_wrong_padding_but_ignores_nan_in_padding() -> None:
    features = torch.zeros(2, 3, 2, 2, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    features[0, 2] = float("nan")
    VideoGrid(features, torch.zeros(2, 3), mask).check()
    features[1, 1, 0, 1, 2] = float("inf")
    with pytest.raises(ValueError, match=r"\(1, 1, 0, 1\)"):
        VideoGrid(features, torch.zeros(2, 3), mask).check()
    with pytest.raises(ValueError, match="after all valid"):
        VideoGrid(torch.zeros(1, 3, 1, 1, 1), torch.zeros(1, 3), torch.tensor([[True, False, True]])).check()
    with pytest.raises(ValueError, match="at least one"):
        VideoGrid(torch.zeros(1, 2, 1, 1, 1), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_check_takes_finite_cells_whose_channels_sum_to_no_finite_number(dtype: torch.dtype) -> None:
    features = torch.full((1, 2, 2, 2, 4), torch.finfo(dtype).max, dtype=dtype)
    VideoGrid.of(features).check()
    features[0, 1, 1, 0, 2] = -torch.inf
    with pytest.raises(ValueError, match=r"\(0, 1, 1, 0\)"):
        VideoGrid.of(features).check()
