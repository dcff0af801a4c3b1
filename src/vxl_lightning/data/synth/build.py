"""All that the demo's ablation reads: videos, a projection fitted on training footage, and cached features.

Leaves ``OUT/videos/{clips,needles}/{train,val,test}`` and, with an encoder, ``OUT/features/...`` of the same shape
and ``OUT/projection.safetensors``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.config import component
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.data.encode import EncodeConfig, encode_shards
from vxl_lightning.data.manifest import NAME
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.synth.footage import SOURCES, locate
from vxl_lightning.data.synth.needles import NeedleConfig, make_needles
from vxl_lightning.data.synth.pretraining import ClipConfig, make_pretraining
from vxl_lightning.encoders.efficientnet_lite0 import EfficientNetLite0, fit_projection
from vxl_lightning.errors import UserError

Report = Callable[[str, int, int], None]
FIT_FRAMES = 512  # of the clips and of the needle videos each


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to make."""

    clips: ClipConfig = field(default_factory=ClipConfig)
    """Diverse clips for reconstructive pretraining."""
    needles: NeedleConfig = field(default_factory=NeedleConfig)
    """Needle videos and their questions."""
    encoder: dict[str, Any] = component("encoder", None)
    """Cache this encoder's features too; none by default."""
    components: int = 0
    """Fit a projection of efficientnet_lite0 to so many channels on training frames; 0 keeps all channels."""


def check_footage() -> int:
    """Find every source, without decoding; gives their number.

    Raises:
        UserError: a package is missing.
    """
    return len([locate(source) for source in SOURCES])


def plan(config: SynthConfig | ClipConfig | NeedleConfig, out: str | Path) -> dict[Path, str]:
    """What would be made where, everything checked that can be before any work.

    Raises:
        UserError: footage or an encoder is missing, or data is there.
    """
    check_footage()
    kinds: dict[str, ClipConfig | NeedleConfig] = {}
    if isinstance(config, SynthConfig):
        kinds |= {"videos/clips": config.clips, "videos/needles": config.needles}
        if config.encoder:
            registry.build("encoder", config.encoder)
    else:
        kinds[""] = config
    planned = {}
    for folder, kind in kinds.items():
        for split in ("train", "val", "test"):
            count, target = getattr(kind, split), Path(out) / folder / split
            if (target / NAME).exists():
                raise UserError(f"{target}: already holds a dataset; name another folder or remove it first")
            films = sum(s.split == split and not s.is_photo for s in SOURCES)
            photos = sum(s.split == split and s.is_photo for s in SOURCES)
            if count:
                planned[target] = (
                    f"{count} clips of {kind.num_frames} frames, {kind.size} px, {kind.fps:g} frames a second, "
                    f"from {films} films and {photos} photographs"
                )
    return planned


def build(config: SynthConfig, out: str | Path, report: Report | None = None) -> dict[str, dict[str, dict[str, int]]]:
    """Make everything the configuration asks for.

    Args:
        config: what to make.
        out: folder; must not hold such data yet.
        report: told (stage, done, in all).

    Returns:
        ``{"clips" | "needles": {split: {"clips": n, task: questions}}}``.

    Raises:
        UserError: footage or an encoder is missing, ``components`` without efficientnet_lite0, or data is there.
    """
    out = Path(out)
    if config.components and config.encoder.get("name") != "efficientnet_lite0":
        raise UserError(
            f"components={config.components} projects efficientnet_lite0, and encoder is "
            f"{config.encoder.get('name') or 'not set'}; set encoder=efficientnet_lite0 or components=0"
        )
    check_footage()

    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: None if report is None else report(stage, done, total)

    made = {
        "clips": make_pretraining(config.clips, out / "videos/clips", told("diverse clips")),
        "needles": make_needles(config.needles, out / "videos/needles", told("needle videos")),
    }
    if not config.encoder:
        return made
    spec = dict(config.encoder)
    if config.components:
        spec["projection"] = str(out / "projection.safetensors")
        raw = registry.build("encoder", {**config.encoder, "projection": None})
        assert isinstance(raw, EfficientNetLite0)
        readers = [ShardReader(out / "videos" / kind / "train") for kind in made if "train" in made[kind]]
        frames = torch.cat([_training_frames(r, FIT_FRAMES, raw.frame_size) for r in readers])
        fit_projection(raw, frames, config.components, spec["projection"])
    for kind, splits in made.items():
        clip = config.clips if kind == "clips" else config.needles
        encoding = EncodeConfig(encoder=spec, fps=clip.fps, max_frames=clip.num_frames)
        for split in splits:
            source, target = out / "videos" / kind / split, out / "features" / kind / split
            encode_shards(source, target, encoding, told(f"features of {kind}/{split}"))
    return made


def _training_frames(reader: ShardReader, count: int, size: tuple[int, int]) -> Tensor:
    """About ``count`` frames: of every clip one, or those with needles, so that the components cover them too."""
    frames: list[Tensor] = []
    for index in range(0, len(reader), -(-len(reader) // count)):
        needles = reader.sample(index).meta.get("needles")
        times = [n["time"] for n in needles] if needles else [0.0]
        frames += [f for f, _ in stream_frames(reader.video(index), times, size)]
    return torch.cat(frames)
