"""Needle videos: coloured shapes on single frames of real footage, and questions about them.

After the needle-in-a-haystack tests of long-video models (video_xl and its successors insert foreign frames), but
drawn into pixels before any encoder, at known places, so that what a compressor kept can be checked cell by cell.
Films, rooms and people are never on two sides, and some colour-shape pairs are drawn in the test split alone.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vxl_lightning.data.schema import Sample
from vxl_lightning.data.synth.clips import Variety, cut_clip
from vxl_lightning.data.synth.footage import Footage, Split
from vxl_lightning.data.synth.questions import MAX_NEEDLES, Ask, Needle, annotate, ask, place_needles
from vxl_lightning.data.synth.shapes import COLOURS, draw_needle
from vxl_lightning.data.synth.writing import Progress, check_counts, generator_for, write_clips

# Clip i follows PLAN[i % 9]: how many needles, and which of the two questions about all of them is asked. So every
# count is the answer equally often.
PLAN: tuple[tuple[int, tuple[Ask, ...]], ...] = (
    (0, ("count", "exists")),
    *((n, (which,)) for which in ("count", "exists") for n in range(1, MAX_NEEDLES + 1)),
)
TRAINING = Variety(min_crop=0.5)
HELD_OUT_FOOTAGE = Variety(min_crop=0.5, jitter=0.15, swap=0.0)


@dataclass(frozen=True, kw_only=True)
class NeedleConfig:
    """What to make."""

    train: int = 700
    """Training clips."""
    val: int = 63
    """Validation clips."""
    test: int = 144
    """Test clips, on footage and with colour-shape pairs that training never shows."""
    num_frames: int = 32
    """Frames of a clip."""
    fps: float = 4.0
    """Frames a second of a clip: at 4, the groups of 32 frames start on the whole seconds 0 to 7."""
    group_frames: int = 4
    """Frames of a group: needles are in groups of their own, and a time is answered by the start of its group."""
    size: int = 128
    """Side of the frames in px, even."""
    seed: int = 0
    """Seed of everything drawn."""
    workers: int = 2
    """Threads; the videos do not depend on it."""

    def __post_init__(self) -> None:
        check_counts(self.train, self.val, self.test)
        if self.group_frames < 1:
            raise ValueError(f"group_frames={self.group_frames} must be at least 1; 4 is usual")
        groups = self.num_frames // self.group_frames
        if self.num_frames % self.group_frames or groups < MAX_NEEDLES:
            raise ValueError(
                f"num_frames={self.num_frames} must be at least {MAX_NEEDLES} whole groups of "
                f"group_frames={self.group_frames}; 32 and 4 are usual"
            )
        if self.size < 64 or self.size % 2:
            raise ValueError(f"size={self.size} must be even and at least 64 px, for shapes to be told apart")


def make_needles(config: NeedleConfig, out: str | Path, progress: Progress | None = None) -> dict[str, dict[str, int]]:
    """Write ``out/train``, ``out/val`` and ``out/test`` as video shards; splits of no clips are left out.

    Args:
        config: what to make.
        out: folder; its sub-folders must not hold datasets.
        progress: told (clips done, clips in all), over the splits.

    Returns:
        For every split its number of clips (``clips``) and of questions of each task.

    Raises:
        UserError: a footage package is missing, or a folder holds a dataset.
    """
    counts: dict[Split, int] = {"train": config.train, "val": config.val, "test": config.test}
    made: dict[str, dict[str, int]] = {}
    before, total = 0, sum(counts.values())
    for split, count in counts.items():
        if count == 0:
            continue
        footage = Footage.load(split)

        def render(index: int, split: Split = split, footage: Footage = footage) -> tuple[Sample, Tensor]:
            return needle_clip(config, split, index, footage)

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        samples = write_clips(Path(out) / split, count, render, config.fps, config.workers, report)
        made[split] = {"clips": count, **Counter(task for s in samples for task in s.meta["task"])}
        before += count
    return made


def draw_needles(clip: Tensor, needles: Iterable[Needle]) -> None:
    """Draw needles into the frames ``[T, 3, h, w]`` uint8 of a clip, in place."""
    for n in needles:
        clip[n.frame] = draw_needle(clip[n.frame], n.shape, COLOURS[n.colour], n.x, n.y, n.radius)


def needle_clip(config: NeedleConfig, split: Split, index: int, footage: Footage) -> tuple[Sample, Tensor]:
    """Clip ``index`` of a split: its annotation and its frames ``[T, 3, size, size]``."""
    generator = generator_for("needles", config.seed, split, index)
    source, frames = footage.draw(index, generator)
    variety = TRAINING if split == "train" else HELD_OUT_FOOTAGE
    clip = cut_clip(frames, config.num_frames, config.size, variety, generator)
    count, about_all = PLAN[index % len(PLAN)]
    shape = (config.num_frames, config.fps, config.group_frames)
    needles = place_needles(count, *shape, split == "test", generator)
    draw_needles(clip, needles)
    questions = ask(needles, *shape, about_all, generator)
    identity = f"needle-{split}-{index:05d}"
    return annotate(identity, f"{identity}.mp4", needles, questions, split=split, footage=source.name), clip
