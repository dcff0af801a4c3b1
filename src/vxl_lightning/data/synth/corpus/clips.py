"""Clips of a corpus: real footage with needles, each unlike every other, so that only planted twins are alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.data.synth.clips import cut_clip
from vxl_lightning.data.synth.corpus.config import CorpusConfig
from vxl_lightning.data.synth.footage import Footage, Source
from vxl_lightning.data.synth.needles import PLAN, TRAINING, draw_needles
from vxl_lightning.data.synth.questions import Ask, Needle, Question, ask, place_needles
from vxl_lightning.data.synth.writing import generator_for
from vxl_lightning.errors import UserError

ALIKE = 0.9  # cosine of two frames' luma from which they count as alike, well below what a recipe calls the same
SHARED = 0.25  # fraction of a clip's frames that another clip may show too
MOVING = 0.01  # mean change of luma over a second, 0 to 1, that a clip which is not static must have
_SIDE = 16  # px that frames are compared at
_ATTEMPTS = 200


@dataclass(frozen=True)
class Clip:
    """A clip: its path under the media folder, its footage, what is drawn on it and what may be asked."""

    media: str
    source: str
    needles: tuple[Needle, ...]
    questions: tuple[Question, ...]

    @property
    def name(self) -> str:
        return PurePosixPath(self.media).stem


Drawn = tuple[Clip, Tensor]
"""A clip and its frames ``[T, 3, h, w]`` uint8."""


class Studio:
    """Draws clips one after the other and sees to it that no two are alike.

    Two crops of one film may look the same by chance; a corpus that held such a pair would call a recipe wrong that
    finds it. So a clip is drawn again until few of its frames look like a frame of any clip before it.

    Args:
        config: what the clips are like.
        footage: films and photographs.
    """

    def __init__(self, config: CorpusConfig, footage: Footage) -> None:
        self._config = config
        self._footage = footage
        self._seen = torch.zeros(0, config.num_frames, _SIDE * _SIDE)

    def clip(self, kind: str, index: int) -> Drawn:
        """Needles on single frames, as many as the demo's clips have, and every question about them."""
        return self._needle_clip(kind, index, *PLAN[index % len(PLAN)])

    def ordered(self, index: int) -> Drawn:
        """Two needles; which came first."""
        clip, frames = self._needle_clip("ordered", index, 2, ())
        return replace(clip, questions=tuple(q for q in clip.questions if q.task == "order")), frames

    def one_frame(self, index: int) -> Drawn:
        """One needle that stays for the whole clip; what it is and its colour. It is listed once a group."""
        config = self._config
        clip, frames = self._needle_clip("one-frame", index, 1, ())
        (needle,) = clip.needles
        lasting = [replace(needle, frame=i, time=i / config.fps) for i in range(config.num_frames)]
        draw_needles(frames, [n for n in lasting if n.frame != needle.frame])
        asked = tuple(replace(q, span=None) for q in clip.questions if q.task in ("what", "colour"))
        return replace(clip, needles=tuple(lasting[:: config.group_frames]), questions=asked), frames

    def static(self, index: int) -> Drawn:
        """A photograph held still, nothing on it."""
        photos = self._footage.photos
        if not photos:
            raise UserError(f"static={self._config.static}: the footage holds no photograph; set static=0")

        def draw(generator: torch.Generator) -> tuple[Source, Tensor]:
            source, picture = photos[index % len(photos)]
            still = cut_clip(picture, 1, self._config.size, TRAINING, generator)
            return source, still.expand(self._config.num_frames, -1, -1, -1).clone()

        source, frames = self._unlike("static", index, draw, moving=False)
        generator = generator_for("corpus", self._config.seed, "static", index, "questions")
        questions = self._ask((), self._config.num_frames, ("count", "exists"), generator)
        return Clip(f"static/static-{index:04d}.mp4", source.name, (), questions), frames

    def part(self, clip: Clip, media: str, first: int, last: int) -> Clip:
        """What is true of a clip's frames ``first`` to ``last`` (not included), whole groups, and asked of them."""
        fps = self._config.fps
        kept = tuple(
            replace(n, frame=n.frame - first, time=(n.frame - first) / fps)
            for n in clip.needles
            if first <= n.frame < last
        )
        generator = generator_for("corpus", self._config.seed, media)
        return Clip(media, clip.source, kept, self._ask(kept, last - first, ("count",), generator))

    def _needle_clip(self, kind: str, index: int, count: int, about_all: tuple[Ask, ...]) -> Drawn:
        config = self._config

        def draw(generator: torch.Generator) -> tuple[Source, Tensor]:
            source, film = self._footage.draw(index, generator)
            return source, cut_clip(film, config.num_frames, config.size, TRAINING, generator)

        source, frames = self._unlike(kind, index, draw, moving=True)
        generator = generator_for("corpus", config.seed, kind, index, "needles")
        needles = place_needles(count, config.num_frames, config.fps, config.group_frames, False, generator)
        draw_needles(frames, needles)
        questions = self._ask(needles, config.num_frames, about_all, generator)
        return Clip(f"{kind}/{kind}-{index:04d}.mp4", source.name, needles, questions), frames

    def _ask(
        self, needles: tuple[Needle, ...], num_frames: int, about_all: tuple[Ask, ...], generator: torch.Generator
    ) -> tuple[Question, ...]:
        return tuple(ask(needles, num_frames, self._config.fps, self._config.group_frames, about_all, generator))

    def _unlike(
        self, kind: str, index: int, draw: Callable[[torch.Generator], tuple[Source, Tensor]], moving: bool
    ) -> tuple[Source, Tensor]:
        """What ``draw`` gives, drawn until it moves (or not) as it should and is unlike all before.

        Raises:
            UserError: the footage gives no further clip.
        """
        for attempt in range(_ATTEMPTS):
            source, frames = draw(generator_for("corpus", self._config.seed, kind, index, attempt))
            looks = _looks(frames)
            if looks is None or (moving and _motion(frames, self._config.fps) < MOVING):
                continue
            if len(self._seen) and shared(looks, self._seen) > SHARED:
                continue
            self._seen = torch.cat([self._seen, looks[None]])
            return source, frames
        raise UserError(
            f"{kind}-{index:04d}: the footage gives no more clips that are unlike the {len(self._seen)} before; "
            "plant fewer clips"
        )


def shared(looks: Tensor, others: Tensor) -> float:
    """Largest fraction of frames that a clip shares with another, seen from either.

    Args:
        looks: ``[T, d]`` unit length.
        others: ``[N, T, d]`` of the other clips.
    """
    alike = torch.einsum("td,nsd->nts", looks, others) > ALIKE
    return float(torch.maximum(alike.any(2).float().mean(1), alike.any(1).float().mean(1)).max())


def _luma(frames: Tensor, side: int) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return F.interpolate((frames.float() * weights).sum(1, keepdim=True), (side, side), mode="area")[:, 0]


def _looks(frames: Tensor) -> Tensor | None:
    """Small grey frames without their mean, of unit length ``[T, d]``; None where a frame is all but flat."""
    grey = _luma(frames, _SIDE).flatten(1)
    grey = grey - grey.mean(1, keepdim=True)
    length = grey.norm(dim=1, keepdim=True)
    return None if float(length.min()) < 5.0 * _SIDE else grey / length


def _motion(frames: Tensor, fps: float) -> float:
    """Mean change of luma from second to second, 0 to 1."""
    seconds = _luma(frames[:: max(round(fps), 1)], frames.shape[-1]) / 255
    return float((seconds[1:] - seconds[:-1]).abs().mean()) if len(seconds) > 1 else 0.0
