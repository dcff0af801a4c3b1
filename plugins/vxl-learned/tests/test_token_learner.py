"""TokenLearner: the kit's laws, and both versions on cases worked out by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from vxl_learned.token_learner import Bottleneck, Convolutions, TokenLearner

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", TokenLearner)
def test_law(law: Callable[[], None]) -> None:
    law()


def build(dim: int = 6, **params: Any) -> TokenLearner:
    torch.manual_seed(0)
    return TokenLearner(TokenLearner.Config(**{"maps": 4} | params), dim=dim)


def grid(frames: int = 2, dim: int = 6) -> VideoGrid:
    return VideoGrid.of(torch.randn(1, frames, 4, 4, dim, generator=torch.Generator().manual_seed(1)))


def test_convolutions_and_sigmoid_are_their_definition() -> None:
    module, video = build(retention=1 / 8), grid()
    maps: Any = module.maps
    assert isinstance(maps, Convolutions)
    frame = video.features[0, 1]
    x = F.layer_norm(frame, (6,), eps=1e-6).permute(2, 0, 1)[None]
    for i, layer in enumerate(maps.layers):
        x = F.conv2d(F.gelu(x) if i else x, layer.weight, padding=1)
    weight = x[0, :2].sigmoid()  # two of the four maps are used
    want = torch.einsum("khw,hwd->kd", weight, frame) / 16
    torch.testing.assert_close(module(video).features[2:], want, atol=1e-6, rtol=1e-4)


def test_network_and_softmax_are_their_definition() -> None:
    module, video = build(retention=1 / 8, by="mlp"), grid()
    maps: Any = module.maps
    assert isinstance(maps, Bottleneck)
    cells = video.features[0, 1].reshape(16, 6)
    logits = maps.layers[2](F.gelu(maps.layers[0](F.layer_norm(cells, (6,), eps=1e-6))))
    want = logits[:, :2].softmax(0).T @ cells
    torch.testing.assert_close(module(video).features[2:], want, atol=1e-6, rtol=1e-4)


def test_maps_of_zero_give_half_the_mean_and_the_mean() -> None:
    video = grid()
    mean = video.features[0].mean((1, 2))
    for by, factor in (("conv", 0.5), ("mlp", 1.0)):
        module = build(retention=1 / 16, by=by)
        for p in module.maps.parameters():
            p.data.zero_()
        torch.testing.assert_close(module(video).features, factor * mean)


def test_a_map_that_looks_for_something_finds_it_and_carries_it() -> None:
    module = build(dim=2, retention=1 / 8, by="mlp", maps=2, bottleneck=2)
    maps: Any = module.maps
    for layer in (maps.layers[0], maps.layers[2]):
        layer.weight.data.copy_(50 * torch.eye(2))
        layer.bias.data.zero_()
    features = torch.zeros(1, 1, 4, 4, 2)
    features[0, 0, 1, 2] = torch.tensor([3.0, 1.0])  # channel 0 above channel 1
    features[0, 0, 3, 0] = torch.tensor([1.0, 4.0])
    tokens = module(VideoGrid.of(features))
    torch.testing.assert_close(tokens.features, torch.tensor([[3.0, 1.0], [1.0, 4.0]]))
    assert tokens.source[0, 0, 1, 2] == 0 and tokens.source[0, 0, 3, 0] == 1


@pytest.mark.parametrize("by", ["conv", "mlp"])
def test_frames_that_only_fill_a_group_have_no_weight(by: str) -> None:
    params = {"retention": 1 / 32, "by": by}
    two, four = build(frames_per_group=2, **params), build(frames_per_group=4, **params | {"retention": 1 / 64})
    for name, p in two.maps.named_parameters():
        p.data.copy_(four.maps.get_parameter(name))
    torch.testing.assert_close(two(grid(2)).features, four(grid(2)).features)


@pytest.mark.parametrize("by", ["conv", "mlp"])
def test_the_gradient_of_a_loss_reaches_every_part(by: str) -> None:
    module = build(retention=1 / 8, frames_per_group=2, by=by)
    module(grid()).features.pow(3).sum().backward()
    for name, p in module.named_parameters():
        if not name.endswith("layers.2.bias"):  # a softmax does not feel what is added to all cells
            assert p.grad is not None and p.grad.abs().max() > 1e-8, name


def test_refusals_name_the_way_out() -> None:
    with pytest.raises(ValueError, match="by='2' is not one of conv, mlp"):
        build(by="2")
    with pytest.raises(ValueError, match=r"asks for 8 tokens .* set maps to at least 8"):
        build(retention=1 / 2).tokens_per_group(4, 4)
