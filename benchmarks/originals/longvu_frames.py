"""LongVU: the frames that its temporal reduction keeps."""

import ast
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _originals import Comparison, Repository
from torch import Tensor

from vxl_lightning.selectors.redundancy_then_query import RedundancyThenQuery, redundancy

REPOSITORY = Repository("Vision-CAIR/LongVU", "1b0be5cc28614b03a423bbaf129ae364750b5012", "Apache-2.0")


def make(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, K, D]``: scenes that change more or less."""
    frames, tokens, dim = shape
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(frames // 20 + 1, tokens, dim, generator=generator).repeat_interleave(20, 0)[:frames]
    change = 0.8 * torch.rand(frames, 1, 1, generator=generator)
    return scene + change * torch.randn(frames, tokens, dim, generator=generator)


def ours(features: Tensor) -> Tensor:
    config = RedundancyThenQuery.Config()
    return (redundancy(features, config.window) < config.threshold).float()


def theirs(folder: Path, features: Tensor) -> Tensor:
    # The function alone, since its module imports the whole model.
    (function,) = [
        node
        for node in ast.walk(ast.parse((folder / "longvu/cambrian_arch.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "select_frame"
    ]
    names: dict[str, Any] = {"torch": torch}
    exec(ast.unparse(function), names)
    # A context too short for the video, so that frames are dropped.
    config = SimpleNamespace(model_type="qwen", highres=True, lowres_token=8, tokenizer_model_max_length=128)
    model = SimpleNamespace(get_model=lambda: SimpleNamespace(config=config))
    frames = len(features)
    kept = names["select_frame"](model, features, [frames], torch.zeros(1, 4), [features] * 2, [(1, 1)])[3][0]
    return torch.zeros(frames).index_fill(0, kept, 1)


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        "selector",
        "redundancy_then_query",
        "kept before the question",
        [(12, 9, 16), (64, 9, 16), (301, 6, 32)],
        make,
        ours,
        theirs,
    ),
)
