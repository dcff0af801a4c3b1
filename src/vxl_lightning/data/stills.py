"""Images shown in order, one a second, behind the same interface as a video."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vxl_lightning.data.backends import Reader, VideoInfo
from vxl_lightning.data.media import Stills

# What `media.IMAGE_SUFFIXES` may hold; PIL would try dozens of formats on a foreign file.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_ROUNDING = 1e-6


class StillsReader(Reader):
    """Decodes each image when it is asked for. All come in one size: the one asked for, else that of the first.

    Args:
        stills: the images.
        size: (h, w) in pixels; None keeps the first image's own.
        max_pixels: of one image, checked before it is decoded.
    """

    def __init__(self, stills: Stills, size: tuple[int, int] | None, max_pixels: int) -> None:
        self._images = stills.images
        self._max_pixels = max_pixels
        count = len(self._images)
        width = height = 0
        if count:
            with _open(self._images[0]) as image:
                width, height = image.size
        self._size = size or (height, width)
        self.info = VideoInfo(float(count), 1.0, count, width, height)
        self.header_frames = None
        self.header_duration = None

    def frames(self, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        numbers = [min(int(t + _ROUNDING), len(self._images) - 1) for t in times]
        decoded = {n: self._decode(n) for n in sorted(set(numbers))}
        return torch.stack([decoded[n] for n in numbers]), torch.tensor(numbers, dtype=torch.float32)

    def _decode(self, number: int) -> Tensor:
        height, width = self._size
        with _open(self._images[number]) as image:
            if image.width * image.height > self._max_pixels:
                raise ValueError(
                    f"image {number} has {image.width}x{image.height}; allowed are {self._max_pixels} pixels"
                )
            shown = image.convert("RGB")
            if shown.size != (width, height):
                shown = shown.resize((width, height), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(shown)).permute(2, 0, 1).contiguous()

    def close(self) -> None:
        pass


def _open(image: bytes | Path) -> Image.Image:
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS)
