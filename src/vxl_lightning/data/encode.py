"""Video shards to feature shards: decode, encode and write as a stream, decoding ahead of the encoder."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.config import component, to_plain
from vxl_lightning.data.decoding import Limits, probe, stream_frames
from vxl_lightning.data.manifest import Encoding, Manifest
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.data.shards import ShardReader, ShardWriter
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What `encode_shards` reads."""

    encoder: dict[str, Any] = component("encoder", "efficientnet_lite0")
    """The encoder and its parameters."""
    fps: float = 2.0
    """Frames sampled a second."""
    max_frames: int = 64
    """Most frames sampled of one video."""
    device: str = "cpu"
    """Where the encoder runs."""
    decode_timeout: float = 600.0
    """Seconds that decoding one video may take."""
    media_root: str = ""
    """Folder that media kept by reference are relative to; needed where the shards refer to such."""


def encode_shards(
    source: str | Path,
    out: str | Path,
    config: EncodeConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Cache an encoder's features of every video of a dataset; its samples are carried along.

    Memory holds the features of one video and two chunks of its frames.

    Args:
        source: folder of video shards.
        out: folder for feature shards.
        config: the encoder and the sampling.
        progress: told (videos done, videos in all).

    Raises:
        UserError: ``source`` holds no videos, ``out`` holds a dataset, or a video cannot be decoded.
    """
    reader = ShardReader(source, config.media_root or None)
    if reader.manifest.kind != "video":
        raise UserError(f"{source}: holds {reader.manifest.kind}, not videos; name the folder of the video shards")
    model: Encoder = registry.build("encoder", config.encoder).eval().to(config.device)
    spec = to_plain({"name": config.encoder["name"], **asdict(model.config)})
    encoding = Encoding(spec, model.fingerprint(), config.fps, config.max_frames, model.grid, model.dim)
    with ShardWriter(out, "features", encoding) as writer, ThreadPoolExecutor(1) as ahead:
        pieces = _pieces(reader, model, config)
        encoded: list[tuple[Tensor, Tensor, Tensor | None]] = []
        pending = ahead.submit(next, pieces, None)
        while (piece := pending.result()) is not None:
            pending = ahead.submit(next, pieces, None)
            number, frames, times, last = piece
            given = model(frames.to(config.device))
            importance = None if given.importance is None else given.importance.cpu()
            encoded.append((given.features.to(torch.bfloat16).cpu(), times, importance))
            if last:
                features, when = torch.cat([e[0] for e in encoded]), torch.cat([e[1] for e in encoded])
                mass = [e[2] for e in encoded if e[2] is not None]
                samples = [reader.sample(i) for i in reader.samples_of(number)]
                key = reader.key(reader.samples_of(number)[0])
                writer.add_features(samples, features, when, torch.cat(mass) if mass else None, key)
                encoded.clear()
                if progress is not None:
                    progress(number + 1, reader.num_media)
    return Manifest.load(Path(out))[0]


def _pieces(reader: ShardReader, model: Encoder, config: EncodeConfig) -> Iterator[tuple[int, Tensor, Tensor, bool]]:
    """(media, frames, times, whether these are its last frames) over all media."""
    limits = Limits(timeout=config.decode_timeout)
    for number in range(reader.num_media):
        media, name = reader.media(number), reader.where_media(number)
        times = sample_times(probe(media, limits=limits, name=name).duration, config.fps, config.max_frames)
        left = len(times)
        for frames, stamps in stream_frames(
            media, times, model.frame_size, model.config.batch_frames, limits=limits, name=name
        ):
            left -= len(frames)
            yield number, frames, stamps, left == 0
