"""Video Token Merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vxl_merging import VideoTokenMerging
from vxl_merging.partition import change, drawn, every, regions
from vxl_merging.saliency import SaliencyAttention

from vxl_lightning.models.recot import ReCoT
from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", VideoTokenMerging)
def test_law(law: Callable[[], None]) -> None:
    law()


def vtm(dim: int, **params: Any) -> VideoTokenMerging:
    return VideoTokenMerging(VideoTokenMerging.Config(**params), dim=dim)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_naive_targets_are_every_gammath_cell() -> None:
    assert every(12, 3).tolist() == [0, 4, 8]
    assert every(16, 6).tolist() == [0, 2, 5, 8, 10, 13], "at equal steps where gamma is no whole number"


@pytest.mark.parametrize("partition", ["naive", "centre", "boundary", "motion"])
def test_every_cell_goes_to_its_most_similar_target_and_tokens_are_plain_means(partition: str) -> None:
    features = randn(1, 2, 4, 4, 8)
    compressor = vtm(8, retention=1 / 4, frames_per_group=2, partition=partition)
    tokens = compressor(VideoGrid.of(features))
    cells, source = features.reshape(32, 8), tokens.source.flatten()
    clips = next(iter(captured_clips(compressor, features)))
    target = compressor._targets(clips, 8, None)[0].tolist()
    assert source[target].tolist() == list(range(8)), "targets carry themselves, in order"
    for cell in set(range(32)) - set(target):
        likeness = [float(F.cosine_similarity(cells[cell], cells[t], dim=0)) for t in target]
        assert int(source[cell]) == likeness.index(max(likeness))
    for token in range(8):
        torch.testing.assert_close(tokens.features[token], cells[source == token].mean(0))


def captured_clips(compressor: VideoTokenMerging, features: Tensor) -> list[Any]:
    seen: list[Any] = []
    merge_clips = compressor.merge_clips
    compressor.merge_clips = lambda clips, count: (seen.append(clips), merge_clips(clips, count))[1]  # type: ignore[method-assign, func-returns-value]
    compressor(VideoGrid.of(features))
    return seen


def in_centre(target: Tensor) -> int:
    inside = torch.zeros(5, 4, 4, dtype=torch.bool)
    inside[:, 1:3, 1:3] = True
    return int(inside.flatten()[target].sum())


def test_the_centre_has_half_of_the_targets_and_the_boundary_all_but_a_tenth() -> None:
    for dense_centre, want in ((True, 10), (False, 2)):
        target = regions(5, 4, 4, 20, dense_centre=dense_centre)
        assert in_centre(target) == want
        assert len(target.unique()) == 20 and target.equal(target.sort().values)


def test_a_full_centre_leaves_the_rest_of_its_targets_to_the_boundary() -> None:
    assert in_centre(regions(5, 4, 4, 60, dense_centre=True)) == 20
    assert regions(5, 4, 4, 80, dense_centre=False).tolist() == list(range(80))
    assert regions(1, 1, 1, 1, dense_centre=False).tolist() == [0]


def test_targets_are_drawn_with_the_softmax_of_their_scores() -> None:
    scores = torch.tensor([[0.0, 3.0]]).log1p().expand(4000, 2)  # odds of 1 to 4
    index = torch.arange(4000)
    taken = drawn(scores, 1, index, temperature=1.0, seed=0)[:, 0].float().mean()
    assert 0.77 < taken < 0.83
    flat = drawn(scores, 1, index, temperature=100.0, seed=0)[:, 0].float().mean()
    assert 0.46 < flat < 0.54
    assert bool((drawn(scores, 1, index, temperature=0.0, seed=0) == 1).all())


def test_the_draw_of_a_clip_depends_on_its_place_and_the_seed_alone() -> None:
    scores = randn(1, 64).expand(3, 64)
    first = drawn(scores, 8, torch.tensor([0, 5, 0]), temperature=1.0, seed=0)
    assert first[0].equal(first[2]) and not first[0].equal(first[1])
    assert first[1].equal(drawn(scores[:1], 8, torch.tensor([5]), temperature=1.0, seed=0)[0])
    assert not first.equal(drawn(scores, 8, torch.tensor([0, 5, 0]), temperature=1.0, seed=1))


def test_what_moves_most_becomes_targets() -> None:
    features = randn(1, 2, 2, 2, 8)
    motion = torch.tensor([0.0, 9.0, 1.0, 2.0, 8.0, 0.0, 0.0, 0.0]).view(1, 2, 2, 2)
    compressor = vtm(8, retention=1 / 4, frames_per_group=2, partition="motion", temperature=0.0)
    source = compressor(VideoGrid.of(features, motion=motion)).source.flatten()
    assert source[1] == 0 and source[4] == 1
    assert compressor(VideoGrid.of(features)).source.flatten().tolist() != source.tolist()


def test_without_motion_the_change_of_features_stands_in() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    frames = torch.stack([torch.stack([east, east]), torch.stack([east * 2, north]), torch.stack([east, -north])])
    got = change(frames.view(1, 3, 1, 2, 2)).view(3, 2)
    torch.testing.assert_close(got, torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]]))
    assert change(frames[:1].view(1, 1, 1, 2, 2)).abs().sum() == 0


def test_with_gamma_the_least_similar_cells_stay_as_they_are() -> None:
    degrees = torch.tensor([0.0, 50.0, 5.0, 90.0, 100.0, 91.0, 120.0, 89.0]).deg2rad()
    cells = torch.stack([degrees.cos(), degrees.sin()], -1)
    # Targets are cells 0 and 4. From the nearest: 100 and 91, 90, 89 lie at 9, 10, 11 degrees, 0 and 5 at 5,
    # 100 and 120 at 20, 0 and 50 at 50 degrees. Four tokens are due, so four of six sources are merged.
    tokens = vtm(2, retention=1 / 2, gamma=4, frames_per_group=1, partition="naive")(
        VideoGrid.of(cells.view(1, 1, 1, 8, 2))
    )
    assert tokens.source.flatten().tolist() == [0, 1, 0, 2, 2, 2, 3, 2]
    torch.testing.assert_close(tokens.features[[1, 3]], cells[[1, 6]])
    torch.testing.assert_close(tokens.features[2], cells[[3, 4, 5, 7]].mean(0))


def test_untrained_the_learnable_partition_merges_the_cells_as_they_are() -> None:
    features = randn(1, 8, 4, 4, 32)
    tokens = vtm(32, retention=1 / 8)(VideoGrid.of(features))
    source = tokens.source.flatten()
    for token in range(16):
        torch.testing.assert_close(tokens.features[token], features.reshape(128, 32)[source == token].mean(0))


def trained(dim: int, heads: int) -> SaliencyAttention:
    torch.manual_seed(0)
    attention = SaliencyAttention(dim, heads)
    for p in attention.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.3)
    return attention


def test_saliency_learns_from_the_auxiliary_path_and_the_rest_from_the_main_one() -> None:
    attention, cells, factor = trained(8, 2), randn(2, 12, 8), randn(2, 12, 8, seed=1)

    def path(bias: Tensor | float) -> Tensor:
        x = attention.norm(cells)
        q, k, v = (
            y.view(2, 12, 2, 4).transpose(1, 2) for y in (attention.query(x), attention.key(x), attention.value(x))
        )
        mixed = (q @ k.mT / 2 + bias).softmax(-1) @ v
        return cells + attention.out(mixed.transpose(1, 2).reshape(2, 12, 8))  # type: ignore[no-any-return]

    names = [n for n, _ in attention.named_parameters()]
    got = torch.autograd.grad((attention(cells)[0] * factor).sum(), list(attention.parameters()))
    saliency = attention.saliency(attention.key(attention.norm(cells)))[:, :, 0].tanh()
    auxiliary = (path(saliency[:, None, None]) * factor).sum()
    want = dict(zip(names, torch.autograd.grad((path(0.0) * factor).sum(), attention.parameters(), allow_unused=True)))  # noqa: B905
    assert want["saliency.weight"] is None, "the main path alone teaches it nothing"
    want["saliency.weight"] = torch.autograd.grad(auxiliary, attention.saliency.weight)[0]
    for name, gradient in zip(names, got, strict=True):
        torch.testing.assert_close(gradient, want[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_auxiliary_path_changes_no_value() -> None:
    attention, cells = trained(8, 2), randn(2, 12, 8)
    with torch.no_grad():
        alone = attention(cells)[0]
    assert attention(cells)[0].equal(alone)


def test_in_reconstruction_every_part_learns_without_knowing_of_it() -> None:
    torch.manual_seed(0)
    model = ReCoT(vtm(32, retention=1 / 8))
    optimizer = torch.optim.SGD(model.compressor.parameters(), lr=0.1)
    grid = VideoGrid.of(randn(2, 8, 4, 4, 32))
    for _ in range(3):
        optimizer.zero_grad()
        result = model(grid)
        (result.predicted - result.target).square().mean().backward()
        optimizer.step()
    for name, p in model.compressor.named_parameters():
        assert p.grad is not None and bool(p.grad.abs().sum() > 0), name


def test_only_the_learnable_partition_is_trainable() -> None:
    assert vtm(32).trainable and list(vtm(32).parameters())
    assert not vtm(32, partition="motion").trainable and not list(vtm(32, partition="motion").parameters())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"partition": "center"}, "partition='center' is not one of naive, centre"),
        ({"gamma": 6.0}, r"gamma=6 is less than 1 / retention = 16.*at least 16"),
        ({"gamma": 0.0, "retention": 1.0}, "take at least 1, or null"),
        ({"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ({"heads": 5}, "heads=5 does not divide the 32 channels of the grid; some that do: 1, 2, 4, 8"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vtm(32, **params)
