"""FastVID from frames to tokens, against the lines in its authors' language model for LLaVA-OneVision that prune."""

import ast
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from _originals import Comparison, Repository
from torch import Tensor

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("LunarShen/FastVID", "a40a109cb8df20e8c2c17c6850f8269717369990", "MIT")

# A quarter of 120 cells is 30 tokens a frame, 12 of them anchors: they go evenly to 1, 2, 3 or 4 frames, so that the
# original's whole divisions lose none.
RETENTION = 0.25
SHAPES = [(16, 10, 12, 64), (13, 8, 15, 48), (9, 10, 12, 40)]


def make(shape: tuple[int, ...], seed: int) -> VideoGrid:
    """One video of a few scenes, long ones among them, with importance."""
    t, h, w, d = shape
    generator = torch.Generator().manual_seed(seed)
    shared = 3 * torch.randn(d, generator=generator)
    scene = torch.randn(4, h, w, d, generator=generator)[torch.arange(t) * 4 // t]
    features = shared + scene + 0.5 * torch.randn(shape, generator=generator)
    importance = torch.rand(t, h, w, generator=generator)
    return VideoGrid.of(features[None], importance=importance[None])


def _ours(segments: int, grid: VideoGrid) -> tuple[Tensor, Tensor]:
    """The kept cells of ``[T, H * W]``, numbered through, and their tokens in that order."""
    from vxl_pruning.fastvid import FastVID

    compressor = FastVID(FastVID.Config(retention=RETENTION, min_segments=segments), dim=grid.shape[-1])
    cells = grid.features[0].flatten(1, 2)
    assert grid.importance is not None
    ends, salient, anchor = compressor.choose(cells, grid.importance[0].flatten(1))
    tokens, _ = compressor.merge(cells, ends, salient, anchor)
    return (salient | anchor).flatten().nonzero()[:, 0], tokens


def _theirs(segments: int, folder: Path, grid: VideoGrid) -> tuple[Tensor, Tensor]:
    cells = grid.features[0].flatten(1, 2)
    assert grid.importance is not None
    t, s, d = cells.shape
    model = SimpleNamespace(
        frame_num=t,
        video_start_idx=0,
        video_token_len=t * s,
        frame_attn_weights=grid.importance[0].flatten(1),
        frame_global_features=cells.mean(1),
        fastvid_retention_ratio=RETENTION,
        fastvid_DySeg_c=segments,
        fastvid_DySeg_tau=0.9,
        fastvid_STPrune_d=0.4,
        fastvid_DTM_p=4,
        fastvid_DTM_beta=0.6,
    )
    names: dict[str, Any] = {
        # It adds noise of 1e-6 to densities, against ties; here there are none, and the noise is left out.
        "torch": SimpleNamespace(**{**vars(torch), "rand": torch.zeros}),
        "F": torch.nn.functional,
        "self": model,
        "seq_length": t * s,
        "hidden_states": cells.reshape(1, t * s, d),
        "causal_mask": None,
        "position_embeddings": (torch.zeros(1, t * s, 1),) * 2,
    }
    exec(_lines(folder), names)
    return names["keep_indexs"], names["hidden_states"][0]


@lru_cache
def _lines(folder: Path) -> CodeType:
    """The block of the model's forward that prunes, found by what it tests; nothing around it is run."""
    path = folder / "fastvid_llavaonevision/LLaVA-NeXT/llava/model/language_model/modeling_qwen2.py"
    source = path.read_text(encoding="utf-8")
    blocks = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "seq_length > 1"
    ]
    (block,) = [node for node in blocks if "fastvid_DySeg_tau" in ast.unparse(node)]
    return compile(ast.Module(body=block.body, type_ignores=[]), str(path), "exec")


def _compare(segments: int, part: int, what: str) -> Comparison:
    def ours(grid: VideoGrid) -> Tensor:
        return _ours(segments, grid)[part].float()

    def theirs(folder: Path, grid: VideoGrid) -> Tensor:
        return _theirs(segments, folder, grid)[part].float()

    timed = [(32, 27, 28, 1152)] if (segments, what) == (8, "tokens") else []
    named = f"{what}, {segments} segments at least"
    return Comparison("compressor", "fastvid", named, SHAPES, make, ours, theirs, timed=timed)


COMPARISONS: Sequence[Comparison] = tuple(
    _compare(segments, part, what)
    for segments in (2, 5, 8)  # the original always cuts at least once
    for part, what in enumerate(("kept cells", "tokens"))
)
