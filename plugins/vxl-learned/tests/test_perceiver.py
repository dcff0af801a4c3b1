"""The Perceiver resampler: the kit's laws, its definition on a hand-made case, and who carries a cell."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from vxl_learned.learned import carriers
from vxl_learned.perceiver import Perceiver

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", Perceiver)
def test_law(law: Callable[[], None]) -> None:
    law()


def build(dim: int = 8, **params: Any) -> Perceiver:
    torch.manual_seed(0)
    small = {"latents": 16, "heads": 2, "head_dim": 4, "depth": 1} | params
    return Perceiver(Perceiver.Config(**small), dim=dim)


def grid(frames: int = 4, size: int = 2, dim: int = 8) -> VideoGrid:
    return VideoGrid.of(torch.randn(1, frames, size, size, dim, generator=torch.Generator().manual_seed(1)))


def test_one_layer_is_its_definition() -> None:
    module = build(retention=1 / 8, heads=1, head_dim=8)
    torch.nn.init.normal_(module.frame_encoding)
    video = grid()
    layer: Any = module.layers[0]
    cells = F.layer_norm((video.features[0] + module.frame_encoding[:, None, None]).reshape(16, 8), (8,))
    z = module.latents[:2]
    normed = F.layer_norm(z, (8,))
    keys = torch.cat([cells, normed])
    a = layer.attention
    attention = ((normed @ a.query.weight.T) @ (keys @ a.key.weight.T).T / 8**0.5).softmax(-1)
    z = z + attention @ (keys @ a.value.weight.T) @ a.out.weight.T
    z = z + F.gelu(F.layer_norm(z, (8,)) @ layer.feed[1].weight.T) @ layer.feed[3].weight.T
    torch.testing.assert_close(module(video).features, F.layer_norm(z, (8,)), atol=1e-5, rtol=1e-4)


def test_closed_gates_leave_the_latents_alone() -> None:
    module = build(gated=True, depth=2, retention=1 / 4)
    torch.testing.assert_close(module(grid()).features, F.layer_norm(module.latents[:4], (8,)))


def test_a_smaller_retention_uses_the_first_latents() -> None:
    video = grid()
    few, many = build(retention=1 / 16), build(retention=1 / 2)
    many.load_state_dict(few.state_dict())
    # Latents look at one another, so only what they look for is compared: with no feed back, the first are the same.
    for module in (few, many):
        module.layers[0].attention.out.weight.data.zero_()  # type: ignore[union-attr]
    torch.testing.assert_close(few(video).features[0], many(video).features[0])


def test_the_order_of_frames_is_told_apart_once_the_encoding_is_learned() -> None:
    module, video = build(retention=1 / 8), grid()
    backward = video.with_features(video.features.flip(1))
    torch.testing.assert_close(module(video).features, module(backward).features)
    torch.nn.init.normal_(module.frame_encoding)
    assert (module(video).features - module(backward).features).abs().max() > 1e-3


def test_it_learns_where_to_look() -> None:
    """One cell in sixteen is marked, at another place each time; the token must say what it holds."""
    torch.manual_seed(0)
    module = build(retention=1 / 16, heads=2, head_dim=8, depth=1)
    optimiser = torch.optim.Adam([*module.parameters()], lr=1e-2)
    features = torch.randn(64, 4, 2, 2, 8)
    marked = torch.randint(16, (64,))
    cells = features.view(64, 16, 8)
    cells[..., 0] = -2
    cells[torch.arange(64), marked, 0] = 4
    target = cells[torch.arange(64), marked, 1].sign()

    def error() -> torch.Tensor:
        return F.mse_loss(module(VideoGrid.of(features)).features[:, 1], target)

    first = error().item()
    for _ in range(60):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert error().item() < 0.2 * first


def test_a_cell_goes_to_the_token_that_spends_most_of_itself_on_it() -> None:
    attention = torch.tensor([[[0.1, 0.2, 0.7, 0.0], [5.0, 4.0, 1.0, 0.0]]])  # token 1: .5 .4 .1 0
    open_ = torch.tensor([[True, True, True, False]])
    assert carriers(attention, open_).tolist() == [[1, 1, 0, -1]]


def test_a_token_that_wins_no_cell_takes_the_one_its_carrier_misses_least() -> None:
    attention = torch.tensor([[[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.45, 0.3, 0.25]]])
    # Token 0 wins cell 0 and, being first among equals, cell 1; token 1 wins cell 2; token 2 takes cell 1.
    assert carriers(attention, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0, 2, 1]]
    alike = torch.full((1, 3, 5), 0.2)
    assert sorted(set(carriers(alike, torch.ones(1, 5, dtype=torch.bool))[0].tolist())) == [0, 1, 2]
    two = torch.tensor([[True, True, False, False, False]])
    assert carriers(alike, two).tolist() == [[0, 1, -1, -1, -1]]


def test_refusals_name_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"asks for 32 tokens .* set latents to at least 32, or retention to at most"):
        build(retention=1 / 2).tokens_per_group(4, 4)
    with pytest.raises(ValueError, match="heads=0 must be at least 1"):
        build(heads=0)
