"""LLaVA-OneVision: square frames in one piece, and one newline at the video's end."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.hub.family import Family, Video, by_frame
from vxl_lightning.hub.preparing import CLIP, Prepared, WholeFrames


class SquareFrames(WholeFrames):
    """Frames of one size, whose patches are pooled 2 x 2; one placeholder more stands for the newline."""

    kinds: ClassVar[tuple[str, ...]] = ("LlavaOnevisionVideoProcessor",)
    defaults: ClassVar[Mapping[str, Any]] = {**CLIP, "size": {"height": 384, "width": 384}, "default_to_square": False}

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        vision = self.settings.config.vision_config
        patches = self.settings.told("num_image_tokens", (vision.image_size // vision.patch_size) ** 2)
        side = -(-isqrt(patches) // 2)
        text = self.video * (len(frames) * side * side + 1)
        return Prepared(text, {"pixel_values_videos": self.pixels(frames)[None]})


class LlavaOnevision(Family):
    """Cells are the vision tower's patches, 2 x 2 together. The newline is no cell, and stays."""

    model_types = ("llava_onevision",)
    preparation = SquareFrames

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        vision = core.config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // 2)
        return by_frame(self.places(core, inputs), side * side, tail=1)


FAMILY = LlavaOnevision()
