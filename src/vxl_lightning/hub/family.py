"""Where a family of video models puts the cells of a video in its language model's sequence."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import isqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.preparing import Preparation

_MODULES = (
    "qwen2_vl",
    "qwen3_vl",
    "llava_onevision",
    "llava_next_video",
    "smolvlm",
    "internvl",
    "video_llama_3",
)


@dataclass(frozen=True, eq=False)
class Video:
    """One video of a batch.

    Attributes:
        row: of the batch.
        place: ``[T, H, W]`` int64, where every cell stands in the row's sequence.
        times: ``[T]`` seconds.
    """

    row: int
    place: Tensor
    times: Tensor

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        t, h, w = self.place.shape
        return t, h, w


class Family(ABC):
    """What is particular to a family of models. All else, the forward passes before all, stays the model's own.

    Traits:
        model_types: of the configurations that it serves.
        preparation: how its models are shown a video; a family without one is given inputs that others prepared.
        placeholder: the configuration's name of the token that stands where a cell comes to stand.
        encodes: the method of the model without its head that gives the features of videos; ``forward`` and
            ``generate`` both call it.
    """

    model_types: ClassVar[tuple[str, ...]]
    preparation: ClassVar[type[Preparation] | None] = None
    placeholder: ClassVar[str] = "video_token_id"
    encodes: ClassVar[str] = "get_video_features"

    def language_model(self, core: Any) -> Any:
        """The text model inside."""
        return core.language_model

    @abstractmethod
    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        """The videos of a batch, row by row.

        Args:
            core: the model without its head.
            inputs: what its ``forward`` is given, and what was heard.

        Raises:
            UserError: the placeholders are not what the videos' sizes ask for.
        """

    def places(self, core: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        """Where placeholders stand, a tensor a row."""
        return [(row == getattr(core.config, self.placeholder)).nonzero()[:, 0] for row in inputs["input_ids"]]

    def is_text(self, core: Any, ids: Tensor) -> Tensor:
        """Bool like ``ids``: False where a picture's or a video's features stand."""
        marks = [getattr(core.config, name, None) for name in ("image_token_id", "video_token_id")]
        return ~torch.isin(ids, torch.tensor([mark for mark in marks if mark is not None], device=ids.device))


def family_of(core: Any) -> Family:
    """The family of a model without its head.

    Raises:
        UserError: a model of no family that is known here.
    """
    return family_of_kind(getattr(core.config, "model_type", None))


def family_of_kind(kind: str | None) -> Family:
    """The family by the ``model_type`` of a model.

    Raises:
        UserError: a model of no family that is known here.
    """
    kinds = families()
    if kind is None or kind not in kinds:
        raise UserError(
            f"model_type={kind!r} is not a video model that can be wrapped; allowed: {', '.join(sorted(kinds))}; for "
            "another one write a vxl_lightning.hub.family.Family"
        )
    return kinds[kind]


def families() -> dict[str, Family]:
    """Every family, by the ``model_type`` of its models."""
    made: list[Family] = [import_module(f"vxl_lightning.hub.families.{name}").FAMILY for name in _MODULES]
    return {kind: family for family in made for kind in family.model_types}


def seconds(frames: int, apart: float = 1.0, device: torch.device | None = None) -> Tensor:
    """``[frames]`` times, ``apart`` seconds from one to the next."""
    return torch.arange(frames, dtype=torch.float32, device=device) * apart


def by_grid(places: Sequence[Tensor], sizes: Tensor, apart: Sequence[float]) -> list[Video]:
    """Videos whose sizes are told, one after another through the rows.

    Where a batch was repeated for beams, but the sizes were not, each prompt stands in as many neighbouring rows.

    Args:
        places: of the placeholders, a tensor a row.
        sizes: ``[V, 3]`` cells of each video in time, height and width.
        apart: seconds between frames, of each video.

    Raises:
        UserError: the rows do not have as many placeholders as the sizes ask for.
    """
    count, cells = sum(map(len, places)), int(sizes.prod(-1).sum())
    copies = count // cells
    told = f"{count} placeholders of video in input_ids, but the sizes {sizes.tolist()} ask for {cells}"
    if copies * cells != count or len(places) % max(copies, 1):
        raise UserError(f"{told}; pass input_ids and sizes as one call of the processor gave them")
    found: list[Video] = []
    waiting = list(zip(sizes.tolist(), apart, strict=True))[::-1]
    for first in range(0, len(places), copies):
        begin = 0
        while begin < len(places[first]):
            (t, h, w), step = waiting.pop()
            end = begin + t * h * w
            if end > len(places[first]):
                raise UserError(f"{told}, row {first} another number; pass both as one call of the processor gave them")
            for row in range(first, first + copies):
                place = places[row][begin:end].view(t, h, w)
                found.append(Video(row, place, seconds(t, step, place.device)))
            begin = end
    return sorted(found, key=lambda video: video.row)


def by_frame(places: Sequence[Tensor], cells: int, tail: int = 0, joined: bool = False) -> list[Video]:
    """Videos of square frames, each as long as its placeholders say.

    Args:
        places: of the placeholders, a tensor a row.
        cells: of a frame.
        tail: placeholders at a video's end that are no cells.
        joined: all frames of a row are one video; otherwise a video ends where other text follows.

    Raises:
        UserError: they do not come to whole frames.
    """
    side = isqrt(cells)
    found = []
    for row, here in enumerate(places):
        for run in [here] if joined else runs(here):
            frames, rest = divmod(len(run) - tail, cells)
            if rest or side * side != cells:
                raise UserError(
                    f"row {row} of input_ids has {len(run)} placeholders of one video, which are no whole frames of "
                    f"{cells} square cells{f' and {tail} at the end' if tail else ''}; pass input_ids as the model's "
                    "own processor gave them, with text between videos"
                )
            if frames:
                place = run[: frames * cells].view(frames, side, side)
                found.append(Video(row, place, seconds(frames, device=run.device)))
    return found


def runs(place: Tensor) -> list[Tensor]:
    """Neighbouring places together."""
    if not len(place):
        return []
    breaks = ((place[1:] - place[:-1]) != 1).nonzero()[:, 0] + 1
    return list(place.tensor_split(breaks.tolist()))


def with_times(videos: Sequence[Video], times: Sequence[Tensor], rows: int) -> list[Video]:
    """The videos with the times given; those of a batch that was repeated for beams have the times of their prompt.

    Raises:
        UserError: another number of videos or frames.
    """
    copies = max(1, len(videos) // max(len(times), 1))
    prompts = [v for v in videos if v.row % copies == 0]
    by_row: dict[int, list[Tensor]] = {}
    for video, seen in zip(prompts, times, strict=False):
        by_row.setdefault(video.row, []).append(seen)
    left = [list(by_row.get(row - row % copies, [])) for row in range(rows)]
    found = [left[v.row].pop(0) if left[v.row] else None for v in videos]
    sizes, given = [v.size[0] for v in videos], [len(t) for t in times]
    if len(prompts) != len(times) or [len(t) for t in found if t is not None] != sizes:
        raise UserError(
            f"times has {given} frames a video, but the videos have {sizes} as the language model sees them; give one "
            "tensor of seconds a video, a time for every frame (a pair of frames for the Qwen families)"
        )
    at = [t.to(v.place.device).float() for v, t in zip(videos, found, strict=True) if t is not None]
    return [replace(v, times=t) for v, t in zip(videos, at, strict=True)]


def told(inputs: Mapping[str, Any], name: str) -> Tensor:
    """A tensor that the inputs must have.

    Raises:
        UserError: they have not.
    """
    if inputs.get(name) is None:
        raise UserError(f"input_ids has placeholders of a video, but {name} is missing; pass all the processor gave")
    found: Tensor = inputs[name]
    return found
