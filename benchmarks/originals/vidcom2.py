"""VidCom2's scores, shares of frames and kept cells against its authors' functions."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor

REPOSITORY = Repository("xuyang-liu16/VidCom2", "944a17d14f4848ad080a65eab2b0711a760fa154", "Apache-2.0")

RETENTION = 0.25
SHAPES = [(8, 14, 14, 64), (13, 6, 9, 48), (1, 5, 4, 32), (32, 7, 7, 33)]


def make(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]``: what all cells share, what those of a frame share, and what each has of its own."""
    t, h, w, d = shape
    generator = torch.Generator().manual_seed(seed)
    shared, frame, cell = (torch.randn(s, generator=generator) for s in ((d,), (t, 1, 1, d), shape))
    return 2 * shared + 0.4 * frame + cell


def _ours() -> Any:
    from vxl_pruning.vidcom2 import VidCom2

    return VidCom2(VidCom2.Config(retention=RETENTION), dim=1)


@cache
def _functions(folder: Path) -> Any:
    with importing(folder):
        from token_compressor.vidcom2 import vidcom2  # type: ignore[import-not-found]
    return vidcom2


def our_scores(features: Tensor) -> Tensor:
    from vxl_pruning.vidcom2 import similarities

    return torch.stack(similarities(features.flatten(1, 2), 0.5))


def their_scores(folder: Path, features: Tensor) -> Tensor:
    f = _functions(folder)
    t, h, w, d = features.shape
    return torch.stack(f.compute_gaussian_scores(f.select_low_var_channels(features.reshape(-1, d)), h * w))


def our_shares(features: Tensor) -> Tensor:
    from vxl_pruning.vidcom2 import frame_shares

    return frame_shares(-our_scores(features)[0].mean(1), 0.01)


def their_shares(folder: Path, features: Tensor) -> Tensor:
    scales = _functions(folder).compute_scales(-their_scores(folder, features)[0].mean(1), RETENTION)
    shares: Tensor = scales / (RETENTION * len(scales))
    return shares


def our_choice(features: Tensor) -> Tensor:
    keep: Tensor = _ours().keep(features)
    return keep.float()


def their_choice_at_our_counts(folder: Path, features: Tensor) -> Tensor:
    return _their_choice(folder, features, their_scores(folder, features), our_choice(features).mean((1, 2)))


def their_choice(folder: Path, features: Tensor) -> Tensor:
    scores = their_scores(folder, features)
    scales = _functions(folder).compute_scales(-scores[0].mean(1), RETENTION)
    return _their_choice(folder, features, scores, scales)


def _their_choice(folder: Path, features: Tensor, scores: Tensor, scales: Tensor) -> Tensor:
    t, h, w, _ = features.shape
    chosen = _functions(folder).select_outlier_indices(scores.sum(0), scales, h * w)
    keep = torch.zeros(t, h * w)
    for frame, index in enumerate(chosen):
        keep[frame, index] = 1
    return keep.view(t, h, w)


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        "compressor", "vidcom2", "similarity of every cell to both means", SHAPES, make, our_scores, their_scores
    ),
    Comparison("compressor", "vidcom2", "shares of the frames", SHAPES, make, our_shares, their_shares),
    Comparison(
        "compressor", "vidcom2", "kept cells, at our counts", SHAPES, make, our_choice, their_choice_at_our_counts
    ),
    Comparison(
        "compressor",
        "vidcom2",
        "kept cells, at their counts",
        SHAPES,
        make,
        our_choice,
        their_choice,
        differs="frames round their counts one by one there; here they sum to the budget: single cells differ",
        timed=[(32, 27, 27, 1152)],
    ),
)
