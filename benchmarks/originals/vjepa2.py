"""V-JEPA 2: sizes and places of blocks draw for draw, and where the union of the blocks lies over many draws."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from _originals import Comparison, Repository, importing
from torch import Tensor

from vxl_lightning.maskers.multi_block import ASPECT, KINDS, block_size, place_block

REPOSITORY = Repository("facebookresearch/vjepa2", "c2963a47433ecca0ad4f06ec28bcfa8cb5b5cefb", "MIT")
SIZES = 200
DRAWS = 1500
PATCH = 16

Input = tuple[str, tuple[int, ...], int]
SHAPES = [(4, 16, 16, 4), (3, 14, 14, 4), (5, 24, 18, 4)]


def make(shape: tuple[int, ...], seed: int, kind: str) -> Input:
    return kind, shape, seed


def original(folder: Path, given: Input) -> Any:
    kind, (t, h, w, _), _ = given
    number, scale = KINDS[kind]
    with importing(folder):
        module = import_module("src.masks.multiseq_multiblock3d")
    return module._MaskGenerator(
        crop_size=(h * PATCH, w * PATCH),
        num_frames=2 * t,
        spatial_pred_mask_scale=(scale, scale),
        aspect_ratio=ASPECT,
        npred=number,
    )


def our_sizes(given: Input) -> Tensor:
    """``[SIZES, 2]`` height and width of blocks; the original draws two scales, which are fixed, then the aspect."""
    kind, (_, h, w, _), seed = given
    low, high = ASPECT
    sizes = []
    for draw in range(SIZES):
        aspect = float(torch.rand(3, generator=torch.Generator().manual_seed(seed + draw))[2])
        sizes.append(block_size(h, w, KINDS[kind][1], low + (high - low) * aspect))
    return torch.tensor(sizes, dtype=torch.float32)


def their_sizes(folder: Path, given: Input) -> Tensor:
    generator = original(folder, given)
    scale = generator.spatial_pred_mask_scale
    sizes = [
        generator._sample_block_size(torch.Generator().manual_seed(given[2] + draw), (1.0, 1.0), scale, ASPECT)[1:]
        for draw in range(SIZES)
    ]
    return torch.tensor(sizes, dtype=torch.float32)


def our_places(given: Input) -> Tensor:
    """``[SIZES, H, W]`` what single blocks cover, each placed with a seed of its own."""
    _, (_, h, w, _), seed = given
    placed = []
    for draw, size in enumerate(our_sizes(given).int().tolist()):
        generator = torch.Generator().manual_seed(seed + draw)
        placed.append(place_block(h, w, (size[0], size[1]), None, generator).isfinite())
    return torch.stack(placed).float()


def their_places(folder: Path, given: Input) -> Tensor:
    generator = original(folder, given)
    placed = []
    for draw, size in enumerate(their_sizes(folder, given).int().tolist()):
        torch.manual_seed(given[2] + draw)  # the original places blocks with the global generator
        placed.append(1 - generator._sample_block_mask((generator.duration, *size)))
    stacked = torch.stack(placed).float()
    assert bool((stacked == stacked[:, :1]).all()), "blocks last through the whole clip"
    return stacked[:, 0]


def our_union(given: Input) -> Tensor:
    """``[1 + H * W]`` share of a frame that the papers' number of blocks covers; how often each place is."""
    kind, (_, h, w, _), seed = given
    number, scale = KINDS[kind]
    low, high = ASPECT
    covered = torch.zeros(DRAWS, h, w)
    generator = torch.Generator().manual_seed(seed)
    for union in covered:
        block = block_size(h, w, scale, low + (high - low) * float(torch.rand((), generator=generator)))
        for _ in range(number):
            union[place_block(h, w, block, None, generator).isfinite()] = 1
    return torch.cat([covered.mean().view(1), covered.mean(0).flatten()])


def their_union(folder: Path, given: Input) -> Tensor:
    kind, (_, h, w, d), seed = given
    generator = original(folder, (kind, (1, h, w, d), seed))
    torch.manual_seed(seed)
    covered = torch.zeros(DRAWS, h * w)
    for union in covered:
        union[generator(1)[1].flatten()] = 1
    return torch.cat([covered.mean().view(1), covered.mean(0)])


COMPARISONS: Sequence[Comparison] = [
    Comparison(
        kind="masker",
        method="multi_block",
        what=f"{what}, {kind} blocks",
        shapes=SHAPES,
        make=partial(make, kind=kind),
        ours=ours,
        theirs=theirs,
        differs=differs,
    )
    for kind in KINDS
    for what, ours, theirs, differs in (
        ("sizes", our_sizes, their_sizes, ""),
        ("places", our_places, their_places, ""),
        (
            "cover of each place",
            our_union,
            their_union,
            f"chance: means of {DRAWS} draws each, which differ by their own spread (standard error up to "
            f"{(0.5 / DRAWS) ** 0.5:.3f}); the original also draws anew where nothing stays visible",
        ),
    )
]
