"""VisionZip's choice and merge of cells against its authors' lines, which stand in the forward of a vision tower.

The commit is the last before they left the repository for a package.
"""

import ast
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _originals import Comparison, Repository
from torch import Tensor

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("dvlab-research/VisionZip", "734513428509b40fbd0dcc6359776d46e4908180", "Apache-2.0")

TOKENS, DOMINANT = 64, 54
SHAPES = [(3, 24, 24, 64), (1, 14, 14, 48), (5, 9, 17, 40)]


def make(shape: tuple[int, ...], seed: int) -> VideoGrid:
    """``T`` frames whose cells have something in common, with importance."""
    t, h, w, d = shape
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(d, generator=generator) + torch.randn(shape, generator=generator)
    return VideoGrid.of(features[None], importance=torch.rand(1, t, h, w, generator=generator))


def our_tokens(grid: VideoGrid) -> Tensor:
    from vxl_pruning.visionzip import VisionZip

    _, t, h, w, d = grid.shape
    compressor = VisionZip(VisionZip.Config(retention=TOKENS / (h * w), dominant_share=DOMINANT / TOKENS), dim=d)
    tokens: Tensor = compressor(grid).features
    return tokens.view(t, TOKENS, d)


@lru_cache(maxsize=1)
def their_tower(grid: VideoGrid) -> tuple[Any, Tensor]:
    """A tower with the cells as hidden states and as keys, and importance as one head's attention; and its input."""
    cells = grid.features[0].flatten(1, 2)
    assert grid.importance is not None
    t, s, d = cells.shape
    with_class = torch.cat([torch.zeros(t, 1, d), cells], 1)
    attention = torch.zeros(t, 1, s + 1, s + 1)
    attention[:, 0, 0, 1:] = grid.importance[0].flatten(1)
    keys = torch.cat([torch.ones(t, 1, d), cells], 1)
    output = SimpleNamespace(attentions=[attention, None], hidden_states=[with_class, None])

    class Vision(SimpleNamespace):
        def __call__(self, images: Tensor, **flags: bool) -> Any:
            return output

    encoder = SimpleNamespace(layers=[SimpleNamespace(metric=keys), None])
    vision = Vision(
        vision_model=SimpleNamespace(encoder=encoder), _info={"dominant": DOMINANT, "contextual": TOKENS - DOMINANT}
    )
    return SimpleNamespace(vision_tower=vision, device=cells.device, dtype=cells.dtype), cells


def their_tokens(folder: Path, grid: VideoGrid) -> Tensor:
    tokens: Tensor = _forward(folder)(*their_tower(grid))[0]
    return tokens[:, 1:]  # the class token comes first


@lru_cache
def _forward(folder: Path) -> Any:
    """The tower's forward alone: its module wants a transformers of its time."""
    path = folder / "visionzip/clip_encoder.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (forward,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "forward"]
    names: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module(body=[forward], type_ignores=[]), str(path), "exec"), names)
    return names["forward"]


COMPARISONS: Sequence[Comparison] = (
    Comparison(
        "compressor",
        "visionzip",
        "dominant and contextual tokens",
        SHAPES,
        make,
        our_tokens,
        their_tokens,
        timed=[(32, 24, 24, 1152)],
    ),
)
