"""VideoMAE V2: running cell masking, pattern for pattern."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor

from vxl_lightning.maskers.running_cell import RunningCellMasker
from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("OpenGVLab/VideoMAEv2", "29eab1e8a588d1b3ec0cdec7b03a86cca491b74b", "MIT")
SEEDS = 40
"""Draws in which all four starts are met."""

Input = tuple[VideoGrid, float]


def make(shape: tuple[int, ...], seed: int, ratio: float) -> Input:
    return VideoGrid.of(torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))), ratio


def ours(given: Input) -> Tensor:
    """``[4, T, H, W]`` every pattern that is drawn, sorted."""
    grid, ratio = given
    masker = RunningCellMasker(RunningCellMasker.Config(ratio=ratio), grid.shape[-1])
    draws = [masker(grid, torch.Generator().manual_seed(seed)).hidden[0] for seed in range(SEEDS)]
    return torch.stack(draws).float().unique(dim=0)


def theirs(folder: Path, given: Input) -> Tensor:
    grid, ratio = given
    with importing(folder / "dataset"):  # the package itself imports video readers
        generator = import_module("masking_generator").RunningCellMaskingGenerator(grid.shape[1:4], ratio)
    return torch.from_numpy(generator.all_mask_maps).float().view(-1, *grid.shape[1:4]).unique(dim=0)


COMPARISONS: Sequence[Comparison] = [
    Comparison(
        kind="masker",
        method="running_cell",
        what=f"all patterns, ratio {ratio:g}",
        shapes=[(8, 14, 14, 4), (7, 6, 10, 4), (1, 2, 2, 4)],
        make=partial(make, ratio=ratio),
        ours=ours,
        theirs=theirs,
    )
    for ratio in (0.25, 0.5, 0.75)
]
