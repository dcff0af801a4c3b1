"""The strided 3x3x3 convolution of the Dynamic Token Synthesizer, as matrix products on channels-last slots."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class HalveSlots(nn.Module):
    """3x3x3 convolution of stride (2, 1, 1) with replicate padding: half as many slots.

    The padding is one slot in front, none behind, and one cell on every side (the kernel's 3 minus the stride, the
    larger half in front). ``weight[i, j, k]`` is the ``[in, out]`` matrix for time tap i, row tap j, column tap k.

    It is its own autograd function because `torch.nn.functional.conv3d` runs backward at under half the speed of a
    matrix product on CPU, and copies both the padded input and the weights. Here nothing is saved but the
    input itself, and the two taps that read the first slot, which the padding repeats, are one product:
    a sixth of the work for 4 slots, a third for 2. ``benchmarks/dts.py`` measures it.
    """

    def __init__(self, channels: int, zero: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 3, 3, channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if not zero:
            bound = (27 * channels) ** -0.5  # as torch.nn.Conv3d starts
            nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """``x [G, S, H, W, C]``, S even, to ``[G, S / 2, H, W, C]``."""
        weight: Tensor = self.weight
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        y: Tensor = _HalveSlots.apply(x, weight)  # type: ignore[no-untyped-call]
        return y + self.bias


def _products(slots: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """(output slot, input slot, time taps that join them) of the whole convolution."""
    reads: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (0, 1)), (0, 1, (2,))]
    for s in range(1, slots // 2):
        reads += [(s, 2 * s + i - 1, (i,)) for i in range(3)]
    return reads


def _pad_edges(x: Tensor) -> Tensor:
    """``[G, S, H, W, C]`` to ``[G, S, H + 2, W + 2, C]``, the edge cells repeated; memory order is kept."""
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 0, 0), mode="replicate").permute(0, 2, 3, 4, 1)
    return padded.to(x.dtype)  # autocast pads in float32


def _fold_edges(padded: Tensor) -> Tensor:
    """``[..., H + 2, W + 2, C]`` to ``[..., H, W, C]``, the repeated edges added to what they repeat."""
    padded[..., 1, :, :] += padded[..., 0, :, :]
    padded[..., -2, :, :] += padded[..., -1, :, :]
    inner = padded[..., 1:-1, :, :]
    inner[..., 1, :] += inner[..., 0, :]
    inner[..., -2, :] += inner[..., -1, :]
    return inner[..., 1:-1, :]


def _matrix(weight: Tensor, taps: tuple[int, ...], j: int, k: int) -> Tensor:
    """The matrix of one product: time taps that read the same slot are added up beforehand."""
    first, *others = taps
    matrix = weight[first, j, k]
    for other in others:
        matrix = matrix + weight[other, j, k]
    return matrix


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, whose sum is kept in ``total``'s dtype: float32 for half-precision factors."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


class _HalveSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        g, s, h, w, c = x.shape
        padded = _pad_edges(x)
        out = x.new_zeros(s // 2, g * h * w, weight.shape[-1], dtype=_sum_dtype(x.dtype))
        for o, i, taps in _products(s):
            for j, k in product(range(3), repeat=2):
                _add_product(out[o], padded[:, i, j : j + h, k : k + w].reshape(-1, c), _matrix(weight, taps, j, k))
        return out.view(s // 2, g, h, w, -1).transpose(0, 1).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        g, s, h, w, c = x.shape
        needs_x, needs_weight = ctx.needs_input_grad
        padded = _pad_edges(x)
        grad_x = x.new_zeros(s, g, h + 2, w + 2, c, dtype=_sum_dtype(x.dtype)) if needs_x else None
        grad_weight = torch.zeros_like(weight, dtype=_sum_dtype(weight.dtype)) if needs_weight else None
        for o, i, taps in _products(s):
            up = grad[:, o].reshape(g * h * w, -1)
            for j, k in product(range(3), repeat=2):
                if grad_x is not None:
                    down = up @ _matrix(weight, taps, j, k).T
                    grad_x[i, :, j : j + h, k : k + w] += down.view(g, h, w, c)
                if grad_weight is not None:
                    first, *others = taps
                    window = padded[:, i, j : j + h, k : k + w].reshape(-1, c)
                    _add_product(grad_weight[first, j, k], window.T, up)
                    for other in others:  # slot 0's two taps come first, while their sums are equal
                        grad_weight[other, j, k] = grad_weight[first, j, k]
        if grad_x is not None:
            grad_x = _fold_edges(grad_x).transpose(0, 1).to(x.dtype)
        return grad_x, None if grad_weight is None else grad_weight.to(weight.dtype)
