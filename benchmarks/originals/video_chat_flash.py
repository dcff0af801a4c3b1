"""VideoChat-Flash's clip-level merging (HiCo) against `clip_merge`, with the heads that the release compares by.

The release puts unmerged tokens first and targets after them, so both sides' tokens are put in one order before they
are compared: that of a fixed linear map of theirs.
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor
from vxl_merging import ClipMerge

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository(
    "OpenGVLab/VideoChat-Flash",
    "2f8e2f578897895519f11c7d3f9ff26a256b4743",
    "MIT; the file derives from facebookresearch/ToMe, CC BY-NC 4.0",
)

HEADS = 16
RETENTION = 1 / 16
PROJECTORS = Path("llava-train_videochat", "llava", "model", "multimodal_projector")


def _clip(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]``, one clip."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _ordered(tokens: Tensor) -> Tensor:
    key = tokens @ torch.linspace(-1.0, 1.0, tokens.shape[1], device=tokens.device)
    return tokens[key.argsort(stable=True)]


def _ours(clip: Tensor) -> Tensor:
    frames, _, _, channels = clip.shape
    config = ClipMerge.Config(retention=RETENTION, frames_per_group=frames, heads=HEADS)
    return _ordered(ClipMerge(config, dim=channels)(VideoGrid.of(clip[None])).features)


@cache
def _projector(folder: Path) -> Any:
    with importing(folder / PROJECTORS):
        from tome16_mlp_hd64 import ToMe16_mlp_hd64  # type: ignore[import-not-found]
    return ToMe16_mlp_hd64


def _theirs(folder: Path, clip: Tensor) -> Tensor:
    frames, height, width, channels = clip.shape
    config = SimpleNamespace(mm_hidden_size=channels, hidden_size=1, mm_pos_num_frames=frames)
    encoder = SimpleNamespace(image_size=height, patch_size=1, num_attention_heads=HEADS)
    merged = _projector(folder)(config, encoder).merge_tokens(
        clip.view(1, -1, channels), target_num_token=int(frames * height * width * RETENTION + 0.5)
    )
    return _ordered(merged[0])


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="clip_merge",
        what="clips halved to a sixteenth",
        shapes=((4, 14, 14, 64), (4, 8, 8, 64), (3, 8, 12, 128), (5, 4, 8, 64), (1, 8, 12, 256)),
        make=_clip,
        ours=_ours,
        theirs=_theirs,
    ),
    Comparison(
        kind="compressor",
        method="clip_merge",
        what="clips of the release's size",
        shapes=((4, 16, 16, 1024),),
        make=_clip,
        ours=_ours,
        theirs=_theirs,
        timed=((4, 16, 16, 1024),),
        differs="similarities within 1e-5 of each other are equal here, and the earliest wins; among so many random "
        "cells a few may be, and the figure is about 1e-7 for inputs in which none is",
    ),
    Comparison(
        kind="compressor",
        method="clip_merge",
        what="rounds of an odd number of tokens",
        shapes=((3, 7, 9, 64), (2, 5, 5, 64)),
        make=_clip,
        ours=_ours,
        theirs=_theirs,
        differs="a round that starts from an odd number of tokens may merge all of the larger half, where the release "
        "leaves its least similar token and moves it to the front",
    ),
)
