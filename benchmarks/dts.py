"""DTS, forward and backward on 16 frames of 24 x 24 x 1152, against the same formulas written plainly.

    python benchmarks/dts.py                # all runs, writes results/dts.json
    python benchmarks/dts.py --run ours     # one run in this process; also: plain, agree

The plain version keeps channels first and permutes for every layer, has separate 1x1x1 convolutions for q, k and v,
full score matrices by einsum, an explicit [S, S, C] relative table, and `torch.nn.Conv3d`. Both hold the same weights.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from _record import measure, peak_mib, record
from torch import Tensor, nn

from vxl_lightning.compressors.base import Groups
from vxl_lightning.compressors.dts import DynamicTokenSynthesizer, SpatialAttention, TemporalAttention
from vxl_lightning.compressors.strided_conv import HalveSlots

FRAMES, SIZE, DIM = 16, 24, 1152
RETENTION = 1 / 16


class PlainSpatial(nn.Module):
    def __init__(self, ours: SpatialAttention) -> None:
        super().__init__()
        self.norm = _norm(ours.norm)
        self.q, self.k, self.v = (_conv1(w, b) for w, b in _thirds(ours.qkv))
        self.out = _conv1(ours.out.weight, ours.out.bias)

    def forward(self, x: Tensor) -> Tensor:  # [G, C, S, H, W]
        g, c, s, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).permute(0, 2, 3, 4, 1).reshape(g * s, h * w, c) for f in (self.q, self.k, self.v))
        attention = (torch.einsum("nic,njc->nij", q, k) * c**-0.5).softmax(-1)
        mixed = torch.einsum("nij,njc->nic", attention, v).reshape(g, s, h, w, c).permute(0, 4, 1, 2, 3)
        return x + self.out(mixed.contiguous())


class PlainTemporal(nn.Module):
    def __init__(self, ours: TemporalAttention) -> None:
        super().__init__()
        self.norm = _norm(ours.norm)
        self.q, self.k, self.v = (_conv1(w, b) for w, b in _thirds(ours.qkv))
        self.out = _conv1(ours.out.weight, ours.out.bias)
        self.relative_k, self.relative_v = _copy(ours.relative_k), _copy(ours.relative_v)

    def forward(self, x: Tensor) -> Tensor:  # [G, C, S, H, W]
        g, c, s, h, w = x.shape
        positions = x.permute(0, 3, 4, 1, 2).reshape(g * h * w, c, s, 1, 1)
        y = self.norm(positions)
        q, k, v = (f(y).reshape(g * h * w, c, s).transpose(1, 2) for f in (self.q, self.k, self.v))
        slot = torch.arange(s)
        distance = slot[None] - slot[:, None] + s - 1
        q, k = q * c**-0.25, k * c**-0.25
        scores = torch.einsum("nic,njc->nij", q, k) + torch.einsum("nic,ijc->nij", q, self.relative_k[distance])
        attention = scores.softmax(-1)
        mixed = torch.einsum("nij,njc->nic", attention, v)
        mixed = mixed + torch.einsum("nij,ijc->nic", attention, self.relative_v[distance])
        change = self.out(mixed.transpose(1, 2).reshape(g * h * w, c, s, 1, 1))
        return x + change.reshape(g, h, w, c, s).permute(0, 3, 4, 1, 2)


class PlainConv(nn.Module):
    def __init__(self, ours: HalveSlots) -> None:
        super().__init__()
        channels = len(ours.bias)
        self.conv = nn.Conv3d(channels, channels, 3, stride=(2, 1, 1))
        self.conv.weight.data = ours.weight.detach().permute(4, 3, 0, 1, 2).contiguous()
        self.conv.bias = _copy(ours.bias)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.unflatten(2, (-1, 2)).mean(3)
        out: Tensor = self.conv(F.pad(x, (1, 1, 1, 1, 1, 0), mode="replicate"))
        return out + mean


class Plain(nn.Module):
    """``features [G, F, H, W, C]`` to ``[G, K, C]``."""

    def __init__(self, ours: DynamicTokenSynthesizer) -> None:
        super().__init__()
        self.temporal_encoding = _copy(ours.temporal_encoding)
        kinds: dict[type, Any] = {
            SpatialAttention: PlainSpatial,
            TemporalAttention: PlainTemporal,
            HalveSlots: PlainConv,
        }
        self.blocks = nn.Sequential(*(kinds[type(b)](b) for b in ours.blocks))
        self.grid = ours.block_grid(SIZE, SIZE)

    def forward(self, features: Tensor) -> Tensor:
        x = (features + self.temporal_encoding[:, None, None]).permute(0, 4, 1, 2, 3).contiguous()
        pooled = F.adaptive_avg_pool2d(self.blocks(x).squeeze(2), self.grid)
        return pooled.flatten(2).transpose(1, 2)


def _copy(p: Tensor) -> nn.Parameter:
    return nn.Parameter(p.detach().clone())


def _norm(ours: nn.GroupNorm) -> nn.GroupNorm:
    norm = nn.GroupNorm(ours.num_groups, ours.num_channels, eps=ours.eps)
    norm.load_state_dict(ours.state_dict())
    return norm


def _thirds(qkv: nn.Linear) -> list[tuple[Tensor, Tensor]]:
    return list(zip(qkv.weight.chunk(3), qkv.bias.chunk(3), strict=True))


def _conv1(weight: Tensor, bias: Tensor) -> nn.Conv3d:
    conv = nn.Conv3d(weight.shape[1], weight.shape[0], 1)
    conv.weight.data, conv.bias = weight.detach().clone()[:, :, None, None, None], _copy(bias)
    return conv


def dts() -> DynamicTokenSynthesizer:
    torch.manual_seed(0)
    module = DynamicTokenSynthesizer(DynamicTokenSynthesizer.Config(retention=RETENTION), dim=DIM)
    for p in module.parameters():
        if p.ndim > 1:  # out of the zero start, so that every term is exercised
            p.data.add_(torch.randn_like(p), alpha=0.2 * p[0].numel() ** -0.5)
    return module


def features() -> Tensor:
    group = 4
    return torch.randn(FRAMES // group, group, SIZE, SIZE, DIM, generator=torch.Generator().manual_seed(1))


def run_ours(module: DynamicTokenSynthesizer, x: Tensor) -> Tensor:
    groups = Groups(x, torch.arange(len(x)), torch.ones(x.shape[:2], dtype=torch.bool))
    return module.compress_groups(groups)[0]


def step(which: str, repeats: int) -> dict[str, Any]:
    """Median seconds of forward and backward, and the peak memory of the process with and without them."""
    ours = dts()
    module: nn.Module = ours
    if which == "plain":
        module = Plain(ours)
        del ours
    x = features()
    loaded = peak_mib()
    wall, cpu = [], []
    for _ in range(repeats):
        module.zero_grad()
        x = x.detach().requires_grad_()
        start = time.perf_counter(), time.process_time()
        y = run_ours(module, x) if isinstance(module, DynamicTokenSynthesizer) else module(x)
        y.square().mean().backward()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": peak_mib(), "before_mib": loaded}


def agree() -> dict[str, Any]:
    """Largest difference of outputs and of input gradients, as a share of the largest value."""
    ours = dts()
    plain, gap = Plain(ours), {}
    x, z = features()[:1].requires_grad_(), features()[:1].requires_grad_()
    a, b = run_ours(ours, x), plain(z)
    a.square().mean().backward()
    b.square().mean().backward()
    assert x.grad is not None and z.grad is not None
    for name, p, q in (("output", a, b), ("input_gradient", x.grad, z.grad)):
        gap[name] = ((p - q).abs().max() / q.abs().max()).item()
    assert max(gap.values()) < 1e-4, gap
    return gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=["ours", "plain", "agree"])
    parser.add_argument("--repeats", type=int, default=2, help="steps in each process")
    parser.add_argument("--threads", type=int, default=1, help="one makes CPU seconds comparable on a busy machine")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each version, taken in turn")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.run:
        print(json.dumps(agree() if args.run == "agree" else step(args.run, args.repeats)))
        return
    threads = ("--threads", str(args.threads))
    gap = measure(__file__, "--run", "agree", *threads)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for _ in range(args.rounds):
        for which, taken in runs.items():
            taken.append(measure(__file__, "--run", which, "--repeats", str(args.repeats), *threads))
            print(which, taken[-1], flush=True)
    medians = {
        which: {
            "wall_s": statistics.median(s for r in taken for s in r["wall_s"]),
            "cpu_s": statistics.median(s for r in taken for s in r["cpu_s"]),
            "peak_mib": statistics.median(r["peak_mib"] for r in taken),
            "before_mib": statistics.median(r["before_mib"] for r in taken),
        }
        for which, taken in runs.items()
    }
    ratio = {k: medians["ours"][k] / medians["plain"][k] for k in ("wall_s", "cpu_s", "peak_mib")}
    shape = {"frames": FRAMES, "height": SIZE, "width": SIZE, "dim": DIM, "dtype": "float32", "retention": RETENTION}
    measured = {"shape": shape, "largest_relative_difference": gap, "median": medians, "ratio": ratio, "runs": runs}
    print(json.dumps({"ratio": ratio, "median": medians, "difference": gap, "load": os.getloadavg()}, indent=1))
    print(record("dts", measured))


if __name__ == "__main__":
    main()
