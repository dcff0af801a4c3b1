"""BOLT: the frames that its inverse transform sampling gives for given scores, where no two fall together."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _originals import Comparison, Repository
from torch import Tensor

from vxl_lightning.selectors.bolt import InverseTransformSampling

REPOSITORY = Repository("sming256/BOLT", "8a9ba455e8c7668ae4443b3273bbf283b700cc7f", "MIT")

Input = tuple[Tensor, int, float]
"""Scores ``[G]``, the budget and the power."""


def spread(shape: tuple[int, ...], seed: int) -> Input:
    """Scores that vary slowly about 1, so that the quantiles lie some items apart."""
    items, budget, power = shape
    phase = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    time = torch.linspace(0, 6, items, dtype=torch.float64)
    return sum(torch.sin(time * (k + 1) + 6 * phase[k]) for k in range(3)) / 10, budget, float(power)


def together(shape: tuple[int, ...], seed: int) -> Input:
    """Few items hold most of the weight."""
    items, budget, power = shape
    return torch.rand(items, generator=torch.Generator().manual_seed(seed)) ** 4, budget, float(power)


def ours(given: Input) -> Tensor:
    scores, budget, power = given
    index = InverseTransformSampling(InverseTransformSampling.Config(power=power), dim=1).choose(scores, budget)
    return torch.zeros(len(scores)).index_fill(0, index, 1)


def theirs(folder: Path, given: Input) -> Tensor:
    # The function alone, since its module loads CLIP.
    (function,) = [
        node
        for node in ast.parse((folder / "select_frames.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "inverse_transform_sampling"
    ]
    names: dict[str, Any] = {"np": np}
    exec(ast.unparse(function), names)
    scores, budget, power = given
    index = torch.from_numpy(names["inverse_transform_sampling"](scores.numpy(), budget, power))
    return torch.zeros(len(scores)).index_fill(0, index, 1)


COMPARISONS: Sequence[Comparison] = (
    Comparison("selector", "bolt", "chosen", [(256, 8, 3), (333, 16, 1), (1001, 32, 3)], spread, ours, theirs),
    Comparison(
        "selector",
        "bolt",
        "chosen, quantiles on one item",
        [(64, 32, 3)],
        together,
        ours,
        theirs,
        differs="theirs returns an item several times; ours draws again among the others, so that the count is exact",
    ),
)
