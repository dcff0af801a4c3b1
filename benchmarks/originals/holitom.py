"""HoliTom's segments, clustering and whole merging against `holitom/llava_arch.py`.

The original's methods sit in a mixin for LLaVA-NeXT, which is not needed to run them: its class is compiled from the
checkout's source by itself, and the noise it breaks ties with is put to zero.
"""

import ast
import math
import os
from abc import ABC
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from _originals import Comparison, Repository
from torch import Tensor
from vxl_segments.holitom import HoliTom, static_segments

from vxl_lightning.compressors.density import density_peaks
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("cokeshao/HoliTom", "e9b2972f6895c9e7d7fe74eb8c3a2ecaab8056e0", "Apache-2.0")

TAU, CENTRE_SHARE, NEIGHBOURS = 0.8, 0.6, 7


@cache
def _original(folder: Path) -> Any:
    tree = ast.parse((folder / "holitom" / "llava_arch.py").read_text())
    mixin = next(n for n in tree.body if isinstance(n, ast.ClassDef))
    names: dict[str, Any] = {"torch": torch, "math": math, "ABC": ABC, "os": os}
    exec(compile(ast.Module([mixin], []), "llava_arch.py", "exec"), names)
    return type("Merging", (names[mixin.name],), {"model": SimpleNamespace(image_newline=None)})()


def _drifting(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]``: every cell drifts at its own pace, and twice all of them change."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(shape, generator=generator)
    pace = torch.rand(shape[1:3], generator=generator)[..., None]
    cut = torch.zeros(shape[0], dtype=torch.bool)
    cut[:: max(1, shape[0] // 3)] = True
    return torch.where(cut[:, None, None, None], steps, steps * pace).cumsum(0)


def _scene(shape: tuple[int, ...], seed: int) -> Tensor:
    """Half of the places stand still, the others change completely."""
    video = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    flat = video.flatten(1, 2)
    flat[:, ::2] = flat[:1, ::2] + flat[:, ::2] / 10
    return flat.view(shape)


def _similarity(video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    return F.cosine_similarity(cells[:-1], cells[1:], dim=-1)


def _our_segments(video: Tensor) -> Tensor:
    return static_segments(_similarity(video) > TAU, 1024).length.cumsum(0).float()


def _their_segments(folder: Path, video: Tensor) -> Tensor:
    found, _ = _original(folder).select_static_windows(_similarity(video), len(video), TAU, 1024)
    return torch.tensor([float(last + 1) for _, last in found])


def _our_centres(video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    t, p, _ = cells.shape
    leader = density_peaks(cells, torch.ones(t, p, dtype=torch.bool), torch.full((t,), p // 4), NEIGHBOURS)
    return torch.stack([row.unique() for row in leader]).float()


def _their_centres(folder: Path, video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    with patch.object(torch, "rand", torch.zeros):
        centres, _ = _original(folder).cluster_dpc_knn(cells, cells.shape[1] // 4, NEIGHBOURS)
    return centres.sort(1).values.float()


def _our_tokens(video: Tensor) -> Tensor:
    config = HoliTom.Config(retention=_retention(video))
    return _by_value(HoliTom(config, dim=video.shape[-1])(VideoGrid.of(video[None])).features)


def _their_tokens(folder: Path, video: Tensor) -> Tensor:
    """The steps of the original's preparation of a video, from its features on.

    Cells that move go through its merging by density, as static ones do; as released it picks them by attention.
    """
    model, similarity = _original(folder), _similarity(video)
    cells = video.flatten(1, 2)
    t, p, d = cells.shape
    spans, saved = model.select_static_windows(similarity, t, TAU, 1024)
    ratio = min(_retention(video) / ((t * p - saved) / (t * p)), 1)
    still, moving, _, _, still_at, moving_at = model.get_static_dynamic_features(
        cells, torch.ones(t, p), spans, similarity, TAU
    )
    parts = []
    with patch.object(torch, "rand", torch.zeros), patch.dict(os.environ, {"NO_BETA": "0"}):
        for i in range(len(spans)):
            for cells, at in ((still[i][None], still_at[i]), (moving[i], moving_at[i])):
                merged, _ = model.merge_tokens_by_density(cells, at, ratio, CENTRE_SHARE, NEIGHBOURS)
                parts.append(merged.flatten(0, 1))
    return _by_value(torch.cat(parts))


def _retention(video: Tensor) -> float:
    """A quarter of what is left after merging half of the places over time: shares of whole tokens."""
    t, h, w, _ = video.shape
    return (h * w // 2 + t * (h * w // 2)) / 4 / (t * h * w)


def _by_value(tokens: Tensor) -> Tensor:
    """Static tokens stand elsewhere among the others in the original: compared is the set."""
    return tokens[tokens[:, 0].argsort()]


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="holitom",
        what="ends of the segments",
        shapes=((16, 8, 8, 64), (33, 6, 9, 48), (7, 4, 4, 32), (1, 3, 5, 16)),
        make=_drifting,
        ours=_our_segments,
        theirs=_their_segments,
    ),
    Comparison(
        kind="compressor",
        method="holitom",
        what="centres of the clusters of a frame",
        shapes=((4, 8, 8, 64), (3, 6, 9, 48), (2, 14, 14, 128)),
        make=_drifting,
        ours=_our_centres,
        theirs=_their_centres,
    ),
    Comparison(
        kind="compressor",
        method="holitom",
        what="tokens, where shares are whole",
        shapes=((8, 8, 8, 64), (7, 8, 12, 48), (16, 16, 8, 32)),
        make=_scene,
        ours=_our_tokens,
        theirs=_their_tokens,
        timed=((32, 28, 28, 1152),),
    ),
)
