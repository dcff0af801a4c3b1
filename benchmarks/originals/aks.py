"""Adaptive keyframe sampling: the frames that the release's script writes for given scores."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor

from vxl_lightning.selectors.aks import AdaptiveKeyframeSampling

REPOSITORY = Repository("ncTimTang/AKS", "46675011a0ad67ad65559ac98235f2ce82102a2e", "none")

Input = tuple[Tensor, int]
"""Scores ``[G]`` and the budget."""


def level(shape: tuple[int, ...], seed: int) -> Input:
    """Distinct scores without a peak."""
    items, budget = shape
    return torch.randperm(items, generator=torch.Generator().manual_seed(seed)) / items, budget


def one_peak(shape: tuple[int, ...], seed: int) -> Input:
    """As many high scores, side by side, as the budget."""
    scores, budget = level(shape, seed)
    scores /= 20
    begin = len(scores) // 3
    scores[begin : begin + budget] += 0.95
    return scores, budget


def several_peaks(shape: tuple[int, ...], seed: int) -> Input:
    """High scores at a few places."""
    scores, budget = level(shape, seed)
    scores /= 20
    for part in range(1, 6):
        begin = part * len(scores) // 6
        scores[begin : begin + budget // 8] += 0.95
    return scores, budget


def ours(given: Input) -> Tensor:
    scores, budget = given
    index = AdaptiveKeyframeSampling(AdaptiveKeyframeSampling.Config(), dim=1).choose(scores, budget)
    return torch.zeros(len(scores)).index_fill(0, index, 1)


def theirs(folder: Path, given: Input) -> Tensor:
    scores, budget = given
    with importing(folder):
        import frame_select
    with TemporaryDirectory() as place:
        files = {"score_path": [scores.tolist()], "frame_path": [list(range(len(scores)))]}
        for name, content in files.items():
            Path(place, name).write_text(json.dumps(content))
        settings = Namespace(
            dataset_name="data",
            extract_feature_model="model",
            **{name: str(Path(place, name)) for name in files},
            max_num_frames=budget,
            ratio=1,
            t1=0.8,
            t2=-100,
            all_depth=5,
            output_file=place,
        )
        frame_select.main(settings)
        (index,) = json.loads(Path(place, "data", "model", "selected_frames.json").read_text())
    return torch.zeros(len(scores)).index_fill(0, torch.tensor(index, dtype=torch.long), 1)


COMPARISONS: Sequence[Comparison] = (
    Comparison("selector", "aks", "chosen, no peak", [(256, 64), (333, 64), (1000, 32)], level, ours, theirs),
    Comparison("selector", "aks", "chosen, one peak", [(256, 16), (1001, 64)], one_peak, ours, theirs),
    Comparison(
        "selector",
        "aks",
        "chosen, several peaks",
        [(512, 64), (1001, 64)],
        several_peaks,
        ours,
        theirs,
        differs="theirs looks for a peak among as many items as the whole budget at every level, ours "
        "among as many as the stretch has to give",
    ),
    Comparison(
        "selector",
        "aks",
        "chosen, uneven budget",
        [(333, 48), (256, 40)],
        level,
        ours,
        theirs,
        differs="theirs rounds down in every leaf and returns fewer than the budget; ours is exact",
    ),
)
