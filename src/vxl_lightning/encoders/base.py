"""The encoder contract: decoded frames in, grid cells out; always frozen here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class EncodedFrames:
    """``features [T, H, W, D]`` of T frames and, where the encoder can tell, ``importance [T, H, W]``."""

    features: Tensor
    importance: Tensor | None = None


class Encoder(nn.Module, ABC):
    """Encodes frames one by one: no frame sees another, so chunks may be cut anywhere.

    Built as ``Class(Config(...))``. ``frame_size`` is what the decoder is asked for, so that resizing
    happens while decoding.
    """

    gives_importance: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    api_version: ClassVar[str] = "1"
    locations: ClassVar[tuple[str, ...]] = ()
    """Fields of the Config that say where weights lie; the fingerprint covers what is in them instead."""

    dim: int
    grid: tuple[int, int]
    frame_size: tuple[int, int]

    @dataclass(frozen=True, kw_only=True)
    class Config:
        batch_frames: int = 32
        """Frames encoded at a time."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def encode(self, frames: Tensor) -> EncodedFrames:
        """``frames [T, 3, h, w]`` uint8 RGB at ``frame_size``, at most ``batch_frames`` of them."""

    @torch.inference_mode()
    def forward(self, frames: Tensor) -> EncodedFrames:
        """Encode any number of frames ``[T, 3, h, w]`` uint8, batch by batch.

        Raises:
            ValueError: frames that are not uint8 RGB of ``frame_size``.
        """
        if (
            frames.dtype != torch.uint8
            or frames.ndim != 4
            or frames.shape[1] != 3
            or tuple(frames.shape[2:]) != self.frame_size
        ):
            raise ValueError(
                f"{type(self).__name__} takes uint8 frames [T,3,{self.frame_size[0]},{self.frame_size[1]}], "
                f"got {frames.dtype} {tuple(frames.shape)}"
            )
        parts = [self.encode(f) for f in frames.split(self.config.batch_frames)]
        features = torch.cat([p.features for p in parts])
        side = [p.importance for p in parts if p.importance is not None]
        return EncodedFrames(features, torch.cat(side) if side else None)

    def fingerprint(self) -> str:
        """What cached features depend on: class, config and weights; a stale cache is refused by it."""
        import hashlib
        import json
        from dataclasses import asdict

        config = {k: v for k, v in asdict(self.config).items() if k not in self.locations}
        digest = hashlib.sha256(json.dumps([type(self).__name__, config], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
