"""A chain equals its stages applied by hand, and refuses what cannot be chained."""

from typing import Any

import pytest
import torch

from vxl_lightning.ablation import identity
from vxl_lightning.compressors.chain import Chain
from vxl_lightning.compressors.pool import Pool
from vxl_lightning.compressors.random import RandomTokens
from vxl_lightning.tokens import VideoGrid

FIRST = {"name": "pool", "retention": 1 / 8, "frames_per_group": 2}


def chain(*stages: Any, retention: float = 1 / 32, dim: int = 3) -> Chain:
    return Chain(Chain.Config(retention=retention, stages=list(stages)), dim=dim)


def grid(frames: int) -> VideoGrid:
    features = torch.randn(1, frames, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    return VideoGrid.of(features, importance=features.abs().sum(-1))


@pytest.mark.parametrize("frames", [8, 3, 5, 7])
@pytest.mark.parametrize("last", ["pool", "random"])
def test_equals_the_stages_by_hand(frames: int, last: str) -> None:
    tokens = chain(FIRST, {"name": last, "frames_per_group": 2})(grid(frames))
    first = Pool(Pool.Config(retention=1 / 8, frames_per_group=2), dim=3)(grid(frames))
    between = VideoGrid.of(first.features.view(1, -1, 2, 2, 3))
    second_type: Any = {"pool": Pool, "random": RandomTokens}[last]
    second = second_type(second_type.Config(retention=1 / 4, frames_per_group=2), dim=3)(between)
    torch.testing.assert_close(tokens.features, second.features)
    carried = second.source.flatten()[first.source]
    assert torch.equal(tokens.source, carried)


def test_group_and_count_are_products() -> None:
    module = chain(FIRST, {"name": "pool", "frames_per_group": 4})
    assert module.frames_per_group == 8
    assert module.num_tokens(32, 4, 4) == 32 * 16 // 32


def test_importance_reaches_the_next_stage_as_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    module = chain(FIRST, {"name": "pool", "frames_per_group": 2})
    seen: list[torch.Tensor] = []
    last: Any = module.stages[-1]
    compress = last.compress_groups
    monkeypatch.setattr(last, "compress_groups", lambda groups: seen.append(groups.importance) or compress(groups))
    module(grid(4))
    blocks = grid(4).importance.view(2, 2, 2, 2, 2, 2).mean((1, 3, 5))  # type: ignore[union-attr]
    torch.testing.assert_close(seen[0][0], blocks)


def test_traits_are_those_of_the_stages() -> None:
    assert not chain(FIRST, "pool", retention=1 / 64).trainable
    assert chain(FIRST, "dts", retention=1 / 64).trainable


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["pool"], "at least 2 stages"),
        ([{"name": "random", "retention": 0.25}, "pool"], "'random' are no grid, so it can only come last"),
        (["uniform", "pool"], "'uniform' does not work group by group"),
        ([FIRST, {"name": "pool", "retention": 0.5}], "the last stage states retention=0.5"),
        (
            [{"name": "pool", "retention": 1 / 64}, "pool"],
            "more than the 0.015625 that the stages before the last keep",
        ),
        ([FIRST, 3], "3 is neither a name nor a mapping"),
        ([FIRST, "poool"], "did you mean 'pool'"),
    ],
)
def test_refusals_name_the_way_out(stages: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain(*stages)


def test_an_ablation_knows_a_chain_by_its_stages_defaults_too() -> None:
    parts = identity.plugin("compressor", {"name": "chain"})["parts"]
    assert [part["provenance"]["name"] for part in parts] == ["pool", "dts"]
