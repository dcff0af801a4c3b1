"""PruneVid's clustering and merging against `models/pllava/modeling_pllava.py`.

The functions and methods are compiled from the checkout's source by themselves, without the model around them, and the
noise that ties are broken with is put to zero.
"""

import ast
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from _originals import Comparison, Repository
from torch import Tensor
from vxl_segments.prunevid import PruneVid

from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("Visual-AI/PruneVid", "b12600c6176c606ee4b6b7d9e26f4aa46d0dfd42", "CC BY-NC-SA 4.0")

SCENE = 8
"""Frames of a scene, more than the neighbours by which density is measured."""

RATIO = 0.5
"""Of a set's cells that clustering leaves, the paper's."""


@cache
def _methods(folder: Path) -> dict[str, Any]:
    tree = ast.parse((folder / "models" / "pllava" / "modeling_pllava.py").read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    free = ("index_points", "cluster_dpc_knn", "refine_clusters", "segment_lengths")
    methods = ("compute_cluster_vectors", "spatial_merge_tokens", "merge_frames_dynamic")
    wanted: list[ast.stmt] = [n for n in functions if n.name in free + methods]
    names: dict[str, Any] = {"torch": torch, "F": F, "einsum": torch.einsum}
    exec(compile(ast.Module(wanted, []), "modeling_pllava.py", "exec"), names)
    return {name: names[name] for name in methods}


def _original(folder: Path, video: Tensor) -> Any:
    t, h, w, _ = video.shape
    config = SimpleNamespace(
        num_frames=t, pooling_shape=(t, h, w), temporal_segment_ratio=1 / SCENE, cluster_ratio=RATIO
    )
    return type("Merging", (), _methods(folder) | {"config": config})()


def _scenes(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]``: scenes in which half of the places stand still and the others change completely."""
    generator = torch.Generator().manual_seed(seed)
    t, h, w, d = shape
    cells = torch.randn(t, h * w, d, generator=generator)
    still = torch.randn(-(-t // SCENE), 1, h * w, d, generator=generator).expand(-1, SCENE, -1, -1).flatten(0, 1)[:t]
    cells[:, ::2] = still[:, ::2] + cells[:, ::2] / 10
    return cells.view(shape)


def _our_frames(video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    t, p, d = cells.shape
    leader = density_peaks(cells, torch.ones(t, p, dtype=torch.bool), torch.full((t,), int(p * RATIO)), 7)
    means = [cell[own == k].mean(0) for cell, own in zip(cells, leader, strict=True) for k in own.unique()]
    return _by_value(torch.stack(means))


def _their_frames(folder: Path, video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    with patch.object(torch, "rand", torch.zeros):
        merged = _original(folder, video).spatial_merge_tokens(cells, int(cells.shape[1] * RATIO), 7)
    return _by_value(merged.flatten(0, 1))


def _our_video(video: Tensor) -> Tensor:
    t, h, w, d = video.shape
    kept = (t // SCENE + t) * (h * w // 2) * RATIO  # of a still half a scene, and of a moving half a frame
    config = PruneVid.Config(retention=kept / (t * h * w), segment_ratio=1 / SCENE)
    return _by_value(PruneVid(config, dim=d)(VideoGrid.of(video[None])).features)


def _their_video(folder: Path, video: Tensor) -> Tensor:
    with patch.object(torch, "rand", torch.zeros):
        merged, *_ = _original(folder, video).merge_frames_dynamic(video.flatten(0, 2)[None], threshold=0.8, k=7)
    return _by_value(merged[0])


def _by_value(tokens: Tensor) -> Tensor:
    """Tokens are in another order in the original: compared is the set."""
    return tokens[tokens[:, 0].argsort()]


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="prunevid",
        what="clusters of a frame",
        shapes=((4, 8, 8, 64), (3, 6, 9, 48), (2, 14, 14, 128)),
        make=_scenes,
        ours=_our_frames,
        theirs=_their_frames,
    ),
    Comparison(
        kind="compressor",
        method="prunevid",
        what="tokens of still scenes, where shares are whole",
        shapes=((24, 8, 8, 64), (16, 8, 10, 48), (8, 6, 12, 32)),
        make=_scenes,
        ours=_our_video,
        theirs=_their_video,
        timed=((32, 28, 28, 1152),),
    ),
)
