"""Clips: deterministic, in range, diverse; photographs move."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.data.synth.clips import Variety, _frame_index, _windows, cut_clip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(available=st.integers(1, 60), wanted=st.integers(1, 40), seed=st.integers(0, 1000))
def test_frames_come_from_the_footage_at_one_speed(available: int, wanted: int, seed: int) -> None:
    index = _frame_index(available, wanted, seeded(seed))
    assert len(index) == wanted and int(index.min()) >= 0 and int(index.max()) < available
    if available >= 6 * wanted:  # long enough for every speed: no turning back
        assert len(set((index[1:] - index[:-1]).tolist())) <= 1


@given(size=st.tuples(st.integers(32, 200), st.integers(32, 200)), count=st.integers(1, 9), seed=st.integers(0, 1000))
def test_windows_stay_inside(size: tuple[int, int], count: int, seed: int) -> None:
    for top, left, side in _windows(*size, count, True, 0.25, seeded(seed)):
        assert top >= 0 and left >= 0 and side >= 0.25 * min(size) - 1
        assert top + side <= size[0] and left + side <= size[1]


def test_same_seed_same_clip() -> None:
    film = torch.randint(0, 256, (12, 3, 40, 60), dtype=torch.uint8, generator=seeded(0))
    a, b, c = (cut_clip(film, 8, 32, Variety(), seeded(s)) for s in (1, 1, 2))
    assert a.shape == (8, 3, 32, 32) and a.dtype == torch.uint8
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_photograph_moves() -> None:
    photo = torch.randint(0, 256, (1, 3, 80, 80), dtype=torch.uint8, generator=seeded(0))
    clip = cut_clip(photo, 8, 32, Variety(), seeded(1))
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(clip))


@pytest.mark.parametrize("seed", range(4))
def test_no_variety_keeps_colours(seed: int) -> None:
    film = torch.empty(4, 3, 32, 32, dtype=torch.uint8)
    film[:] = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None]
    clip = cut_clip(film, 4, 16, Variety(min_crop=1.0, jitter=0.0, swap=0.0), seeded(seed))
    assert clip.float().mean((0, 2, 3)).tolist() == [200, 100, 50]
