"""SlowFast-LLaVA's aggregation of frame features."""

import ast
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _einops import rearrange
from _originals import Comparison, Repository
from torch import Tensor, nn

from vxl_lightning.compressors.slow_fast import SlowFast
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository(
    "apple/ml-slowfast-llava", "bea0f73c106b91404ef403353e184b278fcc64a7", "Apple sample code licence, not OSI"
)
FILE = "slowfast_llava/llava/model/llava_arch.py"


def video(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def counts(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Slow frames, tokens of a slow frame, tokens of a frame on the fast path: what the default makes of the shape."""
    return round(frames / 5), height * width // 2, height * width // 36


def ours(features: Tensor) -> Tensor:
    """The default's tokens, put into the original's order: the whole slow path, then the whole fast path."""
    t, h, w, d = features.shape
    slow_frames, slow, fast = counts(t, h, w)
    module = SlowFast(SlowFast.Config(slow_rate=slow_frames / t, **_shares(t, slow_frames, slow, fast, h * w)), dim=d)
    tokens = module(VideoGrid.of(features[None])).features
    paths: tuple[list[Tensor], list[Tensor]] = ([], [])
    chosen = set(module.slow_frames(t).tolist())
    for frame in range(t):
        if frame in chosen:
            paths[0].append(tokens[:slow])
            tokens = tokens[slow:]
        paths[1].append(tokens[:fast])
        tokens = tokens[fast:]
    return torch.cat([*paths[0], *paths[1]])


def _shares(frames: int, slow_frames: int, slow: int, fast: int, cells: int) -> dict[str, float]:
    total = slow_frames * slow + frames * fast
    return {"retention": total / (frames * cells), "slow_share": slow_frames * slow / total}


def theirs(folder: Path, features: Tensor) -> Tensor:
    """The two methods of their model class, without the model (it needs packages that they pin)."""
    t, h, w, d = features.shape
    slow_frames, _, fast = counts(t, h, w)
    side = math.isqrt(fast)
    methods = _methods(folder / FILE, ("temporal_aggregation", "prepare_slowfast"))
    model = SimpleNamespace(temporal_aggregation=lambda *args: methods["temporal_aggregation"](model, *args))
    how = f"slowfast-slow_{slow_frames}frms_spatial_1d_max_pool-fast_{side}x{side}"
    out: Tensor = methods["prepare_slowfast"](model, features.reshape(t, h * w, d), how)
    return out[0]


@cache
def _methods(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    tree = ast.parse(path.read_text())
    wanted: list[ast.stmt] = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names]
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "math": math, "re": re, "rearrange": rearrange}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), scope)
    return scope


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        kind="compressor",
        method="slow_fast",
        what="slow 1x2 maxima of 10 frames and fast 4x4 means of 50, and in proportion",
        shapes=((50, 24, 24, 64), (10, 24, 24, 32), (25, 12, 12, 16), (13, 24, 24, 8), (51, 24, 24, 8)),
        make=video,
        ours=ours,
        theirs=theirs,
        timed=((50, 24, 24, 1152),),
    ),
)
