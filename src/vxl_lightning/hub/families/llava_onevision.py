"""LLaVA-OneVision: square frames in one piece, and one newline at the video's end."""

from collections.abc import Mapping
from typing import Any

from vxl_lightning.hub.family import Family, Video, by_frame


class LlavaOnevision(Family):
    """Cells are the vision tower's patches, 2 x 2 together. The newline is no cell, and stays."""

    model_types = ("llava_onevision",)

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        vision = core.config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // 2)
        return by_frame(self.places(core, inputs), side * side, tail=1)


FAMILY = LlavaOnevision()
