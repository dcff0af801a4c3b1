"""Laws of the maskers: exact counts, padding, seeds, and what each one hides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vxl_lightning import registry
from vxl_lightning.maskers.semantic import SemanticMasker, redundancy
from vxl_lightning.maskers.tube import TubeMasker
from vxl_lightning.tokens import VideoGrid

SPECS = [
    {"name": "random"},
    {"name": "tube"},
    {"name": "tube", "frames": 4},
    {"name": "semantic"},
    {"name": "semantic", "temperature": 0.0},
]


def make_grid(frames: list[int], size: int = 3, dim: int = 8, seed: int = 0) -> VideoGrid:
    torch.manual_seed(seed)
    t = max(frames)
    mask = torch.arange(t)[None] < torch.tensor(frames)[:, None]
    return VideoGrid(torch.randn(len(frames), t, size, size, dim), torch.arange(t).float().expand(len(frames), t), mask)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=15, deadline=None)
@given(
    frames=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    ratio=st.floats(0.01, 0.99),
    size=st.integers(2, 4),
)
def test_hides_exactly_its_count_and_never_padding(spec, frames, ratio, size):
    masker = registry.build("masker", {**spec, "ratio": ratio}, dim=8)
    grid = make_grid(frames, size)
    hidden = masker(grid, seeded()).hidden
    assert hidden.flatten(1).sum(1).tolist() == [masker.num_hidden(n, size, size) for n in frames]
    assert not bool(hidden[~grid.frame_mask].any())


@pytest.mark.parametrize("spec", SPECS[:4], ids=str)
def test_same_seed_same_mask_other_seed_other_mask(spec):
    masker, grid = registry.build("masker", spec, dim=8), make_grid([8, 8])
    first = masker(grid, seeded(1)).hidden
    assert torch.equal(first, masker(grid, seeded(1)).hidden)
    assert not torch.equal(first, masker(grid, seeded(2)).hidden)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_padding_changes_nothing(spec):
    masker, padded = registry.build("masker", spec, dim=8), make_grid([5, 8])
    alone = VideoGrid(padded.features[:1, :5], padded.times[:1, :5], padded.frame_mask[:1, :5])
    assert torch.equal(masker(padded, seeded()).hidden[:1, :5], masker(alone, seeded()).hidden)


def test_tube_hides_the_same_places_in_all_frames_of_a_tube():
    hidden = TubeMasker(TubeMasker.Config(ratio=5 / 9, frames=4), 8)(make_grid([8]), seeded()).hidden[0]
    assert torch.equal(hidden[:4], hidden[:1].expand(4, -1, -1))
    assert torch.equal(hidden[4:], hidden[4:5].expand(4, -1, -1))
    assert not torch.equal(hidden[0], hidden[4])


def test_semantic_hides_what_did_not_change():
    grid = make_grid([4])
    features = grid.features.clone()
    features[:, 1:, 0] = features[:, :1, 0]  # the first row stands still
    masker = SemanticMasker(SemanticMasker.Config(ratio=1 / 3, temperature=0.0), 8)
    hidden = masker(grid.with_features(features), seeded()).hidden[0]
    assert bool(hidden[:, 0].all())
    assert not bool(hidden[:, 1:].any())


def test_semantic_prefers_the_still_but_varies():
    grid = make_grid([8])
    features = grid.features.clone()
    features[:, 1:, 0] = features[:, :1, 0]
    masker = SemanticMasker(SemanticMasker.Config(ratio=0.2, temperature=0.2), 8)
    draws = torch.stack([masker(grid.with_features(features), seeded(s)).hidden[0] for s in range(20)]).float()
    assert draws[:, :, 0].mean() > 2 * draws[:, :, 1:].mean()
    assert bool((draws.mean(0)[:, 0] < 1).any())


def test_redundancy_of_a_single_frame_is_neutral():
    assert torch.equal(redundancy(make_grid([1])), torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize("bad", [{"name": "tube", "frames": 0}, {"name": "semantic", "temperature": -1.0}])
def test_bad_values_are_named(bad):
    with pytest.raises(ValueError, match=next(k for k in bad if k != "name")):
        registry.build("masker", bad, dim=8)
