"""DyCoke's temporal token merging against `dycoke`."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _originals import Comparison, Repository
from torch import Tensor
from vxl_temporal.dycoke import TemporalTokenMerging

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("KD-TAO/DyCoke", "dd7463498203479d0ff6f2d29c4e72928c0af244", "Apache-2.0")

ARCHITECTURE, FUNCTION = "llava/model/llava_arch.py", "dycole_ttm"
RATIO = 0.7


def make(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]`` that drift from frame to frame.

    T is one more than whole groups: the original treats frame 2 of a group like the others only where a frame follows
    the group, and drops that frame where it is left over.
    """
    generator = torch.Generator().manual_seed(seed)
    t, h, w, d = shape
    return (torch.randn(t, h, w, d, generator=generator) * torch.rand(t, h, w, 1, generator=generator)).cumsum(0)


def sorted_rows(tokens: Tensor) -> Tensor:
    """By the first channel: the original gives a frame's tokens in the order of their similarity."""
    return tokens[tokens[:, 0].argsort()]


def ours(features: Tensor) -> Tensor:
    config = TemporalTokenMerging.Config(retention=(1 + 3 * (1 - RATIO)) / 4)
    grid = VideoGrid.of(features[None, :-1])
    return sorted_rows(TemporalTokenMerging(config, dim=features.shape[-1])(grid).features)


@cache
def original(folder: Path) -> Any:
    # The file imports all of LLaVA; the function needs torch alone.
    tree = ast.parse((folder / ARCHITECTURE).read_text())
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION)
    space: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module([found], []), ARCHITECTURE, "exec"), space)
    return space[FUNCTION]


def theirs(folder: Path, features: Tensor) -> Tensor:
    cells = features[0, ..., 0].numel()
    return sorted_rows(original(folder)(features.reshape(-1, features.shape[-1]), cells, RATIO))


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="dycoke",
        what="tokens of whole groups at K = 0.7, as a set",
        shapes=((5, 5, 6, 32), (9, 10, 10, 64), (21, 8, 5, 128), (33, 10, 20, 32)),
        make=make,
        ours=ours,
        theirs=theirs,
        timed=((33, 27, 27, 1152),),
    ),
)
