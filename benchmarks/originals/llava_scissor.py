"""LLaVA-Scissor's components against `approximate_components` of `llava/model/llava_arch_zip.py`, in both of its steps.

Up to some three thousand nodes the original's sample at eps = 0.05 is every node, so its components are exact here. It
and its union-find are compiled from the checkout's source by themselves, without the model around them.
"""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _originals import Comparison, Repository
from torch import Tensor
from vxl_segments.components import Links, trees
from vxl_segments.llava_scissor import LLaVAScissor

REPOSITORY = Repository("HumanMLLM/LLaVA-Scissor", "b63354c81e55c82e5d48ced3c993454183b79425", "CC BY-NC 4.0")

TAU = 0.9
THINGS = 6


def _anywhere(shape: tuple[int, ...], seed: int) -> Tensor:
    """``[T, H, W, D]`` cells that point anywhere: in few dimensions, chains of similar ones."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _things(shape: tuple[int, ...], seed: int) -> Tensor:
    """Every cell shows one of `THINGS`, which change slowly: at the end they are not what they were."""
    generator = torch.Generator().manual_seed(seed)
    t, h, w, d = shape
    change = torch.randn(t, THINGS, d, generator=generator)
    change[1:] *= 0.3
    shown = torch.randint(THINGS, (t, h * w), generator=generator)
    shown[:, :THINGS] = torch.arange(THINGS)
    cells = change.cumsum(0).gather(1, shown[:, :, None].expand(t, h * w, d))
    return (cells + 0.05 * torch.randn(cells.shape, generator=generator)).view(shape)


def _first_of(component: Tensor) -> Tensor:
    """Each cell's component by the number of its first cell, one more: a name that both have."""
    _, name = component.unique(return_inverse=True)
    first = torch.full((int(name.max()) + 1,), len(name)).scatter_reduce(0, name, torch.arange(len(name)), "amin")
    return first[name].float() + 1


def _our_frames(video: Tensor) -> Tensor:
    cells = video.flatten(1, 2)
    node = torch.arange(cells[..., 0].numel()).view(cells.shape[:2])
    return _first_of(Links.of(trees(cells, node)).above(TAU).components(node.numel()))


def _our_video(video: Tensor) -> Tensor:
    t, h, w, d = video.shape
    config = LLaVAScissor.Config(retention=THINGS / (t * h * w), tau=TAU)
    return _first_of(LLaVAScissor(config, dim=d).components(video, THINGS).flatten())


@cache
def _original(folder: Path) -> Any:
    tree = ast.parse((folder / "llava" / "model" / "llava_arch_zip.py").read_text())
    wanted = [n for n in tree.body if getattr(n, "name", "") in ("UnionFind", "approximate_components")]
    names: dict[str, Any] = {"np": np, "defaultdict": defaultdict}
    exec(compile(ast.Module(wanted, []), "llava_arch_zip.py", "exec"), names)

    def components(points: Tensor) -> list[list[int]]:
        unit = F.normalize(points, dim=-1)
        found: list[list[int]] = names["approximate_components"]((unit @ unit.T > TAU).numpy(), epsilon=0.05)
        return found

    return components


def _by_frame(components: Any, cells: Tensor) -> tuple[Tensor, Tensor]:
    """``[T, P]`` component of each cell and ``[R, D]`` means, frame after frame."""
    label = torch.full(cells.shape[:2], -1)
    means: list[Tensor] = []
    for frame, own in zip(cells, label, strict=True):
        for members in components(frame):
            own[members] = len(means)
            means.append(frame[members].mean(0))
    return label, torch.stack(means)


def _their_frames(folder: Path, video: Tensor) -> Tensor:
    label, _ = _by_frame(_original(folder), video.flatten(1, 2))
    return _first_of(label.flatten())


def _their_video(folder: Path, video: Tensor) -> Tensor:
    components = _original(folder)
    label, means = _by_frame(components, video.flatten(1, 2))
    of = torch.full((len(means),), -1)
    for number, members in enumerate(components(means)):
        of[members] = number
    return _first_of(of[label].flatten())


COMPARISONS = (
    Comparison(
        kind="compressor",
        method="llava_scissor",
        what="components of each frame at tau",
        shapes=((4, 8, 8, 4), (3, 6, 9, 5), (2, 14, 14, 6)),
        make=_anywhere,
        ours=_our_frames,
        theirs=_their_frames,
    ),
    Comparison(
        kind="compressor",
        method="llava_scissor",
        what="components of the video, at their number",
        shapes=((8, 6, 6, 64), (13, 4, 7, 48), (1, 5, 3, 32)),
        make=_things,
        ours=_our_video,
        theirs=_their_video,
        timed=((32, 27, 27, 1152),),
    ),
)
