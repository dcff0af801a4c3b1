"""What a task of lmms-eval shows and says, and what it wants a reply to be like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from vxl_lightning.data.media import kind_of
from vxl_lightning.errors import UserError

HARNESS_STOP = "\n\n"
"""The stop that lmms-eval gives to tasks which name none; its own chat models pass over it."""

LISTED = 10
"""Missing videos that an error names."""


@dataclass(frozen=True)
class Video:
    """A file, or the part of it from ``begin`` to ``end`` seconds."""

    path: str
    begin: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Turn:
    """What a task shows and says, all in one turn.

    Attributes:
        visual: a video, or images in their order.
        text: what is said.
    """

    visual: Video | tuple[Image | str, ...]
    text: str


def as_visual(visuals: Iterable[Any], task: str) -> Video | tuple[Image | str, ...]:
    """One video, or images.

    Raises:
        UserError: there is neither, both, or more than one video.
    """
    found = [str(v) if isinstance(v, Path) else v for v in visuals]
    images = [v for v in found if _is_image(v)]
    if images and len(images) == len(found):
        return tuple(images)
    if len(found) == 1 and isinstance(found[0], str):
        return Video(found[0])
    if len(found) == 1 and isinstance(found[0], Mapping):
        part = found[0]
        path = next((part[k] for k in ("path", "url", "video") if isinstance(part.get(k), str)), None)
        if path is not None:
            return Video(path, part.get("video_start"), part.get("video_end"))
    kinds = ", ".join(sorted({type(v).__name__ for v in found})) or "nothing"
    raise UserError(f"{task}: shows {len(found)} visuals ({kinds}); vxl is shown one video, or images")


def _is_image(visual: Any) -> bool:
    return isinstance(visual, Image) or (isinstance(visual, str) and kind_of(Path(visual).name) == "image")


def check_there(turns: Iterable[Turn]) -> None:
    """Every video that is to be shown is there.

    Raises:
        UserError: it names the first that are not.
    """
    paths = [turn.visual.path for turn in turns if isinstance(turn.visual, Video)]
    missing = {path: paths.count(path) for path in dict.fromkeys(paths) if not Path(path).exists()}
    if missing:
        listed = ", ".join(list(missing)[:LISTED]) + (", ..." if len(missing) > LISTED else "")
        raise UserError(
            f"{len(missing)} videos of {sum(missing.values())} questions are missing: {listed}; "
            "put them where the task looks for them, mostly below $HF_HOME"
        )


def check_greedy(settings: Mapping[str, Any], task: str) -> None:
    """A task takes the likeliest reply.

    Raises:
        UserError: it wants one that is drawn at random or searched for with beams.
    """
    warm = float(settings.get("temperature") or 0) > 0
    if settings.get("do_sample", warm) or int(settings.get("num_beams") or 1) > 1:
        raise UserError(
            f"{task}: wants replies drawn at random or searched with beams ({dict(settings)}); our models give the "
            "likeliest one: add --gen_kwargs do_sample=False,num_beams=1"
        )


def longest(settings: Mapping[str, Any]) -> int:
    """Tokens that a task gives a reply, 0 where it does not say."""
    return int(settings.get("max_new_tokens") or settings.get("max_gen_toks") or 0)


def cut(reply: str, until: str | Sequence[str] | None) -> str:
    """A reply up to the first stop that its task names."""
    stops = [until] if isinstance(until, str) else until or []
    for stop in stops:
        if stop and stop != HARNESS_STOP:
            reply = reply.split(stop)[0]
    return reply
