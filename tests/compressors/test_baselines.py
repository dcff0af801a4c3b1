"""The compressors that learn nothing: none, random, uniform."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.compressors.none import NoCompression
from vxl_lightning.compressors.random import RandomTokens
from vxl_lightning.compressors.uniform import UniformFrames
from vxl_lightning.tokens import VideoGrid


def grid(videos: int = 1, frames: int = 8) -> VideoGrid:
    return VideoGrid.of(torch.randn(videos, frames, 4, 4, 2, generator=torch.Generator().manual_seed(0)))


def test_none_keeps_every_cell_in_order() -> None:
    tokens = NoCompression(NoCompression.Config(), dim=2)(grid(2, 3))
    assert torch.equal(tokens.features, grid(2, 3).features.reshape(-1, 2))
    assert tokens.source[1].flatten().tolist() == list(range(48))
    assert tokens.weight.eq(1).all()


def test_none_refuses_a_retention() -> None:
    with pytest.raises(ValueError, match=r"retention=0.5: the compressor 'none' keeps every cell"):
        NoCompression.Config(retention=0.5)


def test_random_keeps_the_same_cells_of_every_video() -> None:
    tokens = RandomTokens(RandomTokens.Config(), dim=2)(grid(3))
    assert torch.equal(tokens.source[0], tokens.source[1]) and torch.equal(tokens.source[0], tokens.source[2])
    kept = grid(3).features[tokens.source >= 0]
    assert torch.equal(tokens.features, kept)


def test_random_differs_between_groups_and_seeds() -> None:
    def kept(seed: int) -> torch.Tensor:
        return RandomTokens(RandomTokens.Config(seed=seed), dim=2)(grid(frames=64)).source >= 0

    groups = kept(0).view(16, -1)
    assert len({tuple(g.nonzero().flatten().tolist()) for g in groups}) > 12
    assert not torch.equal(kept(0), kept(1))
    assert torch.equal(kept(0), kept(0))


def test_random_reaches_every_cell_about_equally() -> None:
    source = RandomTokens(RandomTokens.Config(), dim=2)(grid(frames=4 * 512)).source[0]
    hits = (source >= 0).view(512, 64).sum(0)
    assert hits.sum() == 4 * 512
    assert hits.min() >= 8 and hits.max() <= 60  # 32 expected, 5.6 standard deviation


def test_random_names_what_fits_when_a_last_frame_could_not_fill_its_group() -> None:
    with pytest.raises(ValueError, match=r"retention=0.25, or frames_per_group=2"):
        RandomTokens(RandomTokens.Config(retention=0.5), dim=2).num_tokens(8, 4, 4)


def test_a_retention_of_less_than_a_token_is_refused_with_the_least_that_keeps_one() -> None:
    with pytest.raises(ValueError, match=r"retention=0.001 of 64 cells is 0.064 tokens; .* is 0.015625"):
        RandomTokens(RandomTokens.Config(retention=0.001), dim=2).num_tokens(8, 4, 4)
    assert RandomTokens(RandomTokens.Config(retention=1 / 64), dim=2).num_tokens(8, 4, 4) == 2


def test_uniform_takes_the_middle_frame_of_each_stretch() -> None:
    tokens = UniformFrames(UniformFrames.Config(retention=1 / 4), dim=2)(grid())
    assert (tokens.source[0, :, 0, 0] >= 0).nonzero().flatten().tolist() == [2, 6]
    assert torch.equal(tokens.features, grid().features[0, [2, 6]].reshape(-1, 2))


@given(st.integers(1, 40), st.floats(0.01, 1))
def test_uniform_keeps_whole_frames_of_the_announced_count(frames: int, retention: float) -> None:
    compressor = UniformFrames(UniformFrames.Config(retention=retention), dim=1)
    tokens = compressor(VideoGrid.of(torch.zeros(1, frames, 1, 2, 1)))
    assert len(tokens.features) == compressor.num_tokens(frames, 1, 2)
    kept = (tokens.source[0] >= 0).flatten(1)
    assert torch.equal(kept.all(1), kept.any(1))
    assert abs(int(kept.all(1).sum()) - frames * retention) <= 1
