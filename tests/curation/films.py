"""Small films made of drawn scenes: each a textured ground that the camera glides over, and a disc that moves."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.curation.frames import look
from vxl_lightning.curation.recipe import FrameSettings
from vxl_lightning.data.decoding import probe, write_video

FPS = 12.0
HEIGHT, WIDTH = 96, 128


def scene(seed: int, seconds: float = 4.0, glide: float = 6.0) -> Tensor:
    """uint8 ``[T, 3, HEIGHT, WIDTH]``; the camera glides by ``glide`` pixels a second, 0 for a still."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=draw)
    fine = torch.rand(1, 1, 24, 32, generator=draw)
    size = (HEIGHT * 2, WIDTH * 2)
    ground = 0.7 * F.interpolate(coarse, size, mode="bicubic") + 0.3 * F.interpolate(fine, size, mode="bilinear")
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    frames = []
    for t in range(round(seconds * FPS)):
        way = glide * t / FPS
        top, left = int(way) % HEIGHT, int(1.5 * way) % WIDTH
        frame = ground[0, :, top : top + HEIGHT, left : left + WIDTH].clone()
        disc = (y - 20 - 2 * way % 60) ** 2 + (x - 100 + 3 * way % 80) ** 2 < 120
        frame[:, disc] = 1.0
        frames.append(frame)
    return (torch.stack(frames).clamp(0, 1) * 255).byte()


def film(*seeds: int, seconds: float = 4.0) -> Tensor:
    """Scenes one after the other."""
    return torch.cat([scene(seed, seconds) for seed in seeds])


def half(frames: Tensor) -> Tensor:
    """At half the size."""
    return F.interpolate(frames.float(), scale_factor=0.5, mode="area").round().byte()


def write(path: Path, frames: Tensor, crf: int = 18, fps: float = FPS) -> Path:
    write_video(path, frames, fps, crf=crf)
    return path


def looked(path: Path, settings: FrameSettings | None = None) -> dict[str, object]:
    """Its row of the frames table."""
    row = look(path, "video", None, probe(path).duration, settings or FrameSettings())
    assert row["problem"] is None, row["detail"]
    return row
