"""LLaVA-NeXT-Video: square frames in one piece."""

from collections.abc import Mapping
from typing import Any

from vxl_lightning.hub.family import Family, Video, by_frame


class LlavaNextVideo(Family):
    """Cells are the vision tower's patches, pooled by ``spatial_pool_stride``."""

    model_types = ("llava_next_video",)

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        config = core.config
        patches = config.vision_config.image_size // config.vision_config.patch_size
        # A convolution or a pooling that does not divide leaves out what is left over.
        side = patches // config.spatial_pool_stride
        return by_frame(self.places(core, inputs), side * side)


FAMILY = LlavaNextVideo()
