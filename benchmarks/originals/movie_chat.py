"""MovieChat's short memory against `moviechat`."""

import ast
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _originals import Comparison, Repository
from torch import Tensor
from vxl_temporal.moviechat import MovieChatMemory

from vxl_lightning.tokens import VideoGrid

REPOSITORY = Repository("rese1f/MovieChat", "ba9bb802ea209c6d8e8b4333ec917ae3aee55b1d", "BSD-3-Clause")

MODEL, METHOD = "MovieChat/models/moviechat.py", "encode_short_memory_frame"
SHORT, LEFT = 18, 2


class WithoutCuda(ast.NodeTransformer):
    """Leaves out ``.cuda()``, so that the original runs anywhere."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda" else node


def make(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]`` that drift from frame to frame."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cumsum(0)


def ours(features: Tensor) -> Tensor:
    config = MovieChatMemory.Config(retention=LEFT / SHORT, short_memory=SHORT, definition="released")
    return MovieChatMemory(config, dim=features.shape[-1])(VideoGrid.of(features[None])).features


@cache
def original(folder: Path) -> Any:
    # The model imports a language model's stack; its method is given frames in place of what would be encoded.
    tree = ast.parse((folder / MODEL).read_text())
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == METHOD)
    module = ast.fix_missing_locations(ast.Module([WithoutCuda().visit(found)], []))
    space: dict[str, Any] = {"torch": torch, "einops": SimpleNamespace(rearrange=lambda x, *_: x)}
    exec(compile(module, MODEL, "exec"), space)
    return space[METHOD]


def theirs(folder: Path, features: Tensor) -> Tensor:
    model = SimpleNamespace(
        maybe_autocast=nullcontext,
        visual_encoder=lambda frames: frames,
        ln_vision=lambda frames: frames,
        query_tokens=torch.zeros(1, 1, 1),
        short_memory_length=SHORT,
        short_memory_merge=LEFT,
        short_memory_buffer=[],
        long_memory_buffer=[],
    )
    for window in features.flatten(1, 2).split(SHORT):
        model.Qformer = SimpleNamespace(bert=lambda w=window, **_: SimpleNamespace(last_hidden_state=w))
        original(folder)(model, torch.zeros(1, 3, len(window), 1, 1), n_frame=len(window))
    return torch.cat(model.long_memory_buffer)


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="moviechat",
        what="the long memory, before it is full, in the released definition",
        shapes=((1, 2, 3, 16), (18, 4, 8, 64), (41, 4, 8, 768), (97, 3, 5, 32)),
        make=make,
        ours=ours,
        theirs=theirs,
        timed=((36, 27, 27, 1152),),
    ),
)
