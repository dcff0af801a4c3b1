"""Footage made of noise, so that these tests need no package of footage."""

import pytest
import torch
import torch.nn.functional as F

from vxl_lightning.data.synth import build
from vxl_lightning.data.synth.footage import Footage, Source, Split


def grey_film(frames: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Smooth grey noise, so that a drawn colour stands out."""
    coarse = torch.rand(frames, 1, 4, 6, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear") * 120 + 40
    return smooth.expand(-1, 3, -1, -1).byte().contiguous()


def make_footage(split: Split) -> Footage:
    seed = len(split)
    films = [
        (Source(f"{split}_film_{i}", "none", f"{i}.mp4", split, "CC0"), grey_film(n, 96, 128, seed + i))
        for i, n in enumerate((20, 40))
    ]
    photos = [(Source(f"{split}_photo", "none", "p.jpg", split, "CC0"), grey_film(1, 160, 200, seed + 9))]
    return Footage(films, photos if split == "train" else [])


@pytest.fixture
def footage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Footage, "load", staticmethod(make_footage))
    monkeypatch.setattr(build, "check_footage", lambda: 0)
