"""Diverse clips without labels, for reconstructive pretraining: training footage, and held-out footage to judge by."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.synth.clips import Variety, cut_clip
from vxl_lightning.data.synth.footage import Footage, Split
from vxl_lightning.data.synth.writing import Progress, check_counts, generator_for, write_clips


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What to make."""

    train: int = 900
    """Training clips."""
    val: int = 32
    """Clips of validation footage."""
    test: int = 64
    """Clips of test footage."""
    num_frames: int = 32
    """Frames of a clip."""
    fps: float = 2.0
    """Frames a second of a clip; how fast its footage runs varies."""
    size: int = 128
    """Side of the frames in px, even."""
    seed: int = 0
    """Seed of everything drawn."""
    workers: int = 2
    """Threads; the videos do not depend on it."""

    def __post_init__(self) -> None:
        check_counts(self.train, self.val, self.test)
        if self.size < 2 or self.size % 2 or self.num_frames < 1:
            raise ValueError(f"size={self.size} must be even and num_frames={self.num_frames} at least 1")


def make_pretraining(
    config: ClipConfig, out: str | Path, progress: Progress | None = None
) -> dict[str, dict[str, int]]:
    """Write ``out/train``, ``out/val`` and ``out/test`` as video shards; splits of no clips are left out.

    Args:
        config: what to make.
        out: folder; its sub-folders must not hold datasets.
        progress: told (clips done, clips in all), over the splits.

    Returns:
        For every split its number of clips (``clips``).

    Raises:
        UserError: a footage package is missing, or a folder holds a dataset.
    """
    counts: dict[Split, int] = {"train": config.train, "val": config.val, "test": config.test}
    before, total = 0, sum(counts.values())
    for split, count in counts.items():
        if count == 0:
            continue
        footage = Footage.load(split)

        def render(index: int, split: Split = split, footage: Footage = footage) -> tuple[Sample, Tensor]:
            return diverse_clip(config, split, index, footage)

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        write_clips(Path(out) / split, count, render, config.fps, config.workers, report)
        before += count
    return {split: {"clips": count} for split, count in counts.items() if count}


def diverse_clip(config: ClipConfig, split: Split, index: int, footage: Footage) -> tuple[Sample, Tensor]:
    """Clip ``index`` of a split: its annotation (only the footage's name) and its frames ``[T, 3, size, size]``."""
    generator = generator_for("clips", config.seed, split, index)
    source, frames = footage.draw(index, generator)
    clip = cut_clip(frames, config.num_frames, config.size, Variety(), generator)
    identity = f"clip-{split}-{index:05d}"
    turns = (Turn("human", "<image>\nWhich footage is this?"), Turn("gpt", source.name))
    return Sample(identity, f"{identity}.mp4", turns, {"split": split, "footage": source.name}), clip
