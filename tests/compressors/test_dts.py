"""The Dynamic Token Synthesizer: closed forms, and what distinguishes it from pooling."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.compressors.dts import DynamicTokenSynthesizer, SpatialAttention, TemporalAttention, norm_groups
from vxl_lightning.compressors.pool import Pool
from vxl_lightning.compressors.strided_conv import HalveSlots
from vxl_lightning.tokens import VideoGrid


def build(dim: int = 16, noise: float = 0.0, **params: Any) -> DynamicTokenSynthesizer:
    torch.manual_seed(0)
    module = DynamicTokenSynthesizer(DynamicTokenSynthesizer.Config(**params), dim=dim)
    for p in module.parameters():
        p.data.add_(torch.randn_like(p), alpha=noise)
    return module


def grid(frames: int = 8, size: int = 4, dim: int = 16) -> VideoGrid:
    return VideoGrid.of(torch.randn(2, frames, size, size, dim, generator=torch.Generator().manual_seed(1)))


def conv3d(x: Tensor, conv: HalveSlots) -> Tensor:
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 1, 0), mode="replicate")
    return F.conv3d(padded, conv.weight.permute(4, 3, 0, 1, 2), conv.bias, stride=(2, 1, 1)).permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("params", [{"reduction": "saliency"}, {}, {"channels": 8}, {"frames_per_group": 8}])
def test_untrained_equals_pooling(params: dict[str, Any]) -> None:
    module = build(**params)
    pool = Pool(Pool.Config(frames_per_group=module.group_size), dim=16)
    torch.testing.assert_close(module(grid()).features, pool(grid()).features)


def test_saliency_of_an_unfinished_group_is_the_mean_of_the_frames_it_has() -> None:
    got = build(reduction="saliency")(grid(6)).features
    torch.testing.assert_close(got, Pool(Pool.Config(), dim=16)(grid(6)).features)


def test_saliency_weighs_cells_by_their_score() -> None:
    module = build(dim=2, reduction="saliency", depth=0, retention=1 / 8, frames_per_group=2)
    assert module.saliency is not None
    module.saliency.weight.data[:] = torch.tensor([[1.0, 0.0]])
    features = torch.zeros(1, 2, 2, 2, 2)
    features[0, 0, 0, 0] = torch.tensor([2.0, 5.0])
    weight = torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 7)
    torch.testing.assert_close(module(VideoGrid.of(features)).features, weight * torch.tensor([[2.0, 5.0]]))


def test_published_convolution_on_a_hand_made_input() -> None:
    """Every tap 1: an output is the sum over time taps 2s-1, 2s, 2s+1 (the first repeated) and the 3x3 around it."""
    conv = HalveSlots(1, zero=True)
    nn.init.ones_(conv.weight)
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 4, 1, 1, 1).expand(1, 4, 3, 3, 1)
    assert conv(x)[0, :, 1, 1, 0].tolist() == [9 * 12.0, 9 * 1110.0]
    nn.init.zeros_(conv.weight)
    conv.weight.data[1, 0, 2] = 1  # the cell above and to the right, edges repeated
    plane = torch.arange(9.0).view(1, 1, 3, 3, 1).expand(1, 2, 3, 3, 1)
    assert conv(plane)[0, 0, ..., 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_convolution_and_its_gradients_equal_conv3d(slots: int) -> None:
    torch.manual_seed(0)
    conv = HalveSlots(6, zero=False).double()
    nn.init.normal_(conv.bias)
    x = torch.randn(2, slots, 3, 5, 6, dtype=torch.double, requires_grad=True)
    ours, theirs = conv(x), conv3d(x, conv)
    torch.testing.assert_close(ours, theirs)
    up = torch.randn_like(ours)
    wanted = (x, conv.weight, conv.bias)
    for a, b in zip(torch.autograd.grad(ours, wanted, up), torch.autograd.grad(theirs, wanted, up), strict=True):
        torch.testing.assert_close(a, b)


def test_convolution_in_bfloat16_sums_in_float32() -> None:
    torch.manual_seed(0)
    conv = HalveSlots(32, zero=False)
    x = torch.randn(1, 4, 4, 4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = conv(x)
    torch.testing.assert_close(half.float(), conv(x), atol=0.02, rtol=0.02)


def attend(block: TemporalAttention, y: Tensor) -> Tensor:
    """The definition, query by query, for normalised ``y [S, C]``."""
    s, c = y.shape
    q, k, v = block.qkv(y).chunk(3, -1)
    rows = []
    for i in range(s):
        near = slice(s - 1 - i, 2 * s - 1 - i)  # rows of the tables for keys 0..s-1: key - query + s - 1
        score = (k @ q[i]) / c**0.5 + block.relative_k[near] @ (q[i] / c**0.25)
        rows.append(score.softmax(0) @ (v + block.relative_v[near]))
    return block.out(torch.stack(rows))


def test_temporal_attention_is_its_definition_with_the_relative_term_the_right_way_round() -> None:
    torch.manual_seed(0)
    block = TemporalAttention(8, slots=4)
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    x = torch.randn(1, 4, 1, 8)
    normed = F.group_norm(x[:, :, 0].transpose(1, 2), 8, block.norm.weight, block.norm.bias, 1e-6)[0].T
    torch.testing.assert_close(block(x)[0, :, 0], x[0, :, 0] + attend(block, normed))


@pytest.mark.parametrize("side", [3, 9])
def test_spatial_attention_is_its_definition_short_and_long(side: int) -> None:
    torch.manual_seed(0)
    block = SpatialAttention(8)
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 3, side * side, 8)
    normed = F.group_norm(x.permute(0, 3, 1, 2), 8, block.norm.weight, block.norm.bias, 1e-6).permute(0, 2, 3, 1)
    q, k, v = block.qkv(normed).chunk(3, -1)
    want = x + block.out((q @ k.mT / 8**0.5).softmax(-1) @ v)
    torch.testing.assert_close(block(x), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["conv", "saliency"])
def test_the_order_of_frames_matters_once_trained(reduction: str) -> None:
    module = build(noise=0.1, reduction=reduction)
    forward = grid(4)
    backward = forward.with_features(forward.features.flip(1))
    assert (module(forward).features - module(backward).features).abs().max() > 1e-3


@pytest.mark.parametrize("reduction", ["conv", "saliency"])
def test_it_learns_what_pooling_cannot_say(reduction: str) -> None:
    """Which half of the group came first: the mean is the same for both."""
    torch.manual_seed(0)
    module = build(dim=8, reduction=reduction, retention=1 / 16)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    a, b = torch.randn(2, 8)
    features = torch.stack([torch.stack([a, a, b, b]), torch.stack([b, b, a, a])])[:, :, None, None]
    clips = VideoGrid.of(features.expand(2, 4, 2, 2, 8).contiguous())
    target = torch.tensor([[1.0] * 8, [-1.0] * 8])

    def error() -> Tensor:
        return F.mse_loss(module(clips).features, target)

    first = error().item()
    for _ in range(30):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert error().item() < 0.3 * first


def test_published_form_is_not_a_residual() -> None:
    """``residual=False``: the token is what the convolutions give; with zero weights, their bias."""
    module = build(residual=False)
    for block in module.blocks:
        if isinstance(block, HalveSlots):
            nn.init.zeros_(block.weight)
            nn.init.constant_(block.bias, 3.0)
    assert module(grid()).features.eq(3).all()


@pytest.mark.parametrize(("channels", "groups"), [(1152, 32), (256, 32), (40, 20), (30, 30), (37, 1), (8, 8)])
def test_norm_groups_adapt(channels: int, groups: int) -> None:
    assert norm_groups(channels) == groups


def test_impossible_settings_name_the_way_out() -> None:
    with pytest.raises(ValueError, match="frames_per_group=3 must be a power of two"):
        build(frames_per_group=3)
    with pytest.raises(ValueError, match="reduction='mean' is not one of conv, saliency"):
        build(reduction="mean")
    with pytest.raises(ValueError, match=r"retention=0.5 asks for 32 tokens .* nearest that do: .*0.25 \(4x4\)"):
        build(retention=0.5).num_tokens(8, 4, 4)
