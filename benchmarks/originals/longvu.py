"""LongVU's spatial token compression against `longvu` with its threshold.

The original has no function of its own: it is a loop inside the model's preparation of inputs, which is cut out of the
checkout's source and run.
"""

import ast
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from _originals import Comparison, Repository
from torch import Tensor
from vxl_segments.longvu import LongVU

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("Vision-CAIR/LongVU", "1b0be5cc28614b03a423bbaf129ae364750b5012", "Apache-2.0")

THRESHOLD = 0.8


def _video(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]`` cells that drift from frame to frame, to similarities on both sides of the threshold."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(shape, generator=generator)
    steps[1:] *= 0.4
    return steps.cumsum(0)


def _ours(video: Tensor) -> Tensor:
    config = LongVU.Config(retention=1.0, drop_threshold=THRESHOLD)
    return LongVU(config, dim=video.shape[-1])(VideoGrid.of(video[None])).features


@cache
def _loop(folder: Path) -> Any:
    tree = ast.parse((folder / "longvu" / "cambrian_arch.py").read_text())
    loops = [n for n in ast.walk(tree) if isinstance(n, ast.For) and "drop_threshold" in ast.unparse(n)]
    loop = min(loops, key=lambda n: len(ast.unparse(n)))
    return compile(ast.Module([loop], []), "cambrian_arch.py", "exec")


def _theirs(folder: Path, video: Tensor) -> Tensor:
    model = SimpleNamespace(get_model=lambda: SimpleNamespace(config=SimpleNamespace(drop_threshold=THRESHOLD)))
    names: dict[str, Any] = {"torch": torch, "F": F, "math": math, "self": model}
    names |= {"visual_emb_frame": video.flatten(1, 2), "new_visual_emb_frames": []}
    exec(_loop(folder), names)
    return torch.cat(names["new_visual_emb_frames"])


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="longvu",
        what="tokens kept by the threshold",
        shapes=((16, 8, 8, 64), (19, 6, 9, 48), (9, 4, 4, 32), (1, 5, 3, 16)),
        make=_video,
        ours=_ours,
        theirs=_theirs,
        timed=((32, 27, 27, 1152),),
    ),
)
