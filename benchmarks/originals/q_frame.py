"""Q-Frame: the order of frames that its Long-CLIP matching gives, with the same Gumbel noise and without."""

import ast
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from _originals import Comparison, Repository
from torch import Tensor
from torch.nn import functional as F

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.q_frame import QFrame

REPOSITORY = Repository("xiaomi-research/q-frame", "1b08494c1d91237d3bfdddaff561ff3fd77da2a6", "Apache-2.0")

TAU = 0.05

Input = tuple[Tensor, Tensor, int, int]
"""Unit vectors of frames ``[G, D]`` and of the question ``[1, D]``, the budget and the seed of the noise."""


def make(shape: tuple[int, ...], seed: int) -> Input:
    items, dim, budget = shape
    generator = torch.Generator().manual_seed(seed)
    frames, question = torch.randn(items, dim, generator=generator), torch.randn(1, dim, generator=generator)
    return F.normalize(frames, dim=-1), F.normalize(question, dim=-1), budget, seed


def ours(given: Input, training: bool) -> Tensor:
    frames, question, budget, seed = given
    selector = QFrame(QFrame.Config(tau=TAU), dim=frames.shape[1]).train(training)
    torch.manual_seed(seed)
    index = selector(Candidates(frames[:, None], torch.arange(float(len(frames)))), question, budget).index
    return torch.zeros(len(frames)).index_fill(0, index, 1)


def theirs(folder: Path, given: Input, training: bool) -> Tensor:
    frames, question, budget, seed = given
    # The function alone, since its module loads Long-CLIP; in that one's place something that gives these vectors.
    (function,) = [
        node
        for node in ast.parse((folder / "lmms_eval/models/gpt4o_w_qframe.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "TextImageMatching"
    ]
    names: dict[str, Any] = {
        "torch": torch,
        "np": np,
        "device": "cpu",
        "Image": SimpleNamespace(fromarray=lambda x: x),
        "clip_processor": torch.from_numpy,
        "longclip": SimpleNamespace(tokenize=lambda texts: question),
        "clip_model": SimpleNamespace(encode_image=lambda x: x, encode_text=lambda x: x),
    }
    exec(ast.unparse(function), names)
    torch.manual_seed(seed)
    # Equal uniform numbers for every frame are no noise.
    draw = torch.rand if training else (lambda n, device: torch.full((n,), 0.5))
    with mock.patch.object(torch, "rand", draw), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of autocast without a GPU
        order = names["TextImageMatching"]("question\n", list(frames.numpy()), task="longvideobench", tau=TAU)
    return torch.zeros(len(frames)).index_fill(0, torch.from_numpy(order[:budget].copy()), 1)


SHAPES = [(128, 32, 8), (128, 64, 44), (77, 16, 5)]

COMPARISONS: Sequence[Comparison] = (
    Comparison(
        "selector",
        "q_frame",
        "chosen, without noise",
        SHAPES,
        make,
        lambda given: ours(given, False),
        lambda folder, given: theirs(folder, given, False),
    ),
    Comparison(
        "selector",
        "q_frame",
        "chosen, the same noise",
        SHAPES,
        make,
        lambda given: ours(given, True),
        lambda folder, given: theirs(folder, given, True),
    ),
)
