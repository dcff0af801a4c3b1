"""SmolVLM2: the frames of a video are pictures, each behind its timestamp."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import pad

from vxl_lightning.hub.counting import in_words
from vxl_lightning.hub.family import Family, Video, by_frame
from vxl_lightning.hub.frames import normalised, resized
from vxl_lightning.hub.preparing import HALF, Preparation, Prepared, apart
from vxl_lightning.hub.settings import Settings

LARGEST = 4096
"""Longest edge that a frame is ever resized to, in pixels."""


class TimedFrames(Preparation):
    """Frames resized twice: to a longest edge, then to the square that the vision tower takes.

    How many there are and how long the video is stand before them, in words. The folder's chat template knows of no
    videos, so the processor has one of its own; so has this.
    """

    kinds: ClassVar[tuple[str, ...]] = ("SmolVLMVideoProcessor",)
    defaults: ClassVar[Mapping[str, Any]] = {**HALF, "max_image_size": {"longest_edge": 364}, "resample": 1}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        sampling = settings.video.get("video_sampling") or {}
        size = settings.video.get("size") or sampling.get("video_size") or {"longest_edge": 4 * 364}
        self.size = replace(settings, video={**settings.video, "size": size}).size("longest_edge", "height+width")
        self.square = settings.size("longest_edge", name="max_image_size")["longest_edge"]
        config = settings.config
        cells = (config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor) ** 2
        around = settings.mark("fake_image_token", "<fake_token_around_image>")
        whole = settings.mark("global_image_token", "<global-img>")
        self.frame = f"{around}{whole}{self.image * settings.told('image_seq_len', cells)}{around}"

    def prompt(self, question: str) -> str:
        return f"<|im_start|>User: {self.video}{question}<end_of_utterance>\nAssistant:"

    def fitted(self, frames: Tensor, count: int) -> Tensor:
        """uint8 ``[t, 3, h, w]``, resized twice."""
        if self.settings.video["do_resize"]:
            for height, width in (self._first(*frames.shape[-2:]), (self.square, self.square)):
                frames = resized(frames, height, width, self.mode)
        return frames

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        length = timedelta(seconds=int(round(len(times) * apart(times), 3)))
        text = (
            f"You are provided the following series of {in_words(len(times))} frames from a {length} [H:MM:SS] video.\n"
        )
        for t in times:
            text += f"\nFrame from {int(t // 60):02d}:{int(t % 60):02d}:{self.frame}"
        return Prepared(text + "\n\n", {"pixel_values": normalised(frames, self.settings)[None]})

    def _first(self, height: int, width: int) -> tuple[int, int]:
        """Height and width with the longest edge that is asked for; the other one is made even."""
        if "longest_edge" not in self.size:
            return self.size["height"], self.size["width"]
        long = min(self.size["longest_edge"], LARGEST)
        ratio = width / height
        short = int(long / ratio if width >= height else long * ratio)
        short = max(short + short % 2, 1)
        return (short, long) if width >= height else (long, short)

    def joined(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows with fewer frames are filled with empty ones, which the model leaves out."""
        if len(parts) == 1:
            return dict(parts[0])
        most = max(part["pixel_values"].shape[1] for part in parts)
        pixels = [part["pixel_values"] for part in parts]
        return super().joined([{"pixel_values": pad(p, (0, 0, 0, 0, 0, 0, 0, most - p.shape[1]))} for p in pixels])


class SmolVLM(Family):
    """All pictures of a row are read as the frames of one video, in order; timestamps and marks are text, and stay."""

    model_types = ("smolvlm",)
    placeholder = "image_token_id"
    encodes = "get_image_features"
    preparation = TimedFrames

    def language_model(self, core: Any) -> Any:
        return core.text_model

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        return by_frame(self.places(core, inputs), core.image_seq_len, joined=True)


FAMILY = SmolVLM()
