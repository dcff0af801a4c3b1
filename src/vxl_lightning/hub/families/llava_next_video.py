"""LLaVA-NeXT-Video: square frames in one piece."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.hub.family import Family, Video, by_frame
from vxl_lightning.hub.preparing import CLIP, Prepared, WholeFrames


class CroppedFrames(WholeFrames):
    """The middle of every frame; its patches are pooled by ``spatial_pool_stride``."""

    kinds: ClassVar[tuple[str, ...]] = ("LlavaNextVideoVideoProcessor",)
    defaults: ClassVar[Mapping[str, Any]] = {
        **CLIP,
        "size": {"shortest_edge": 224},
        "default_to_square": False,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    }

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        pixels = self.pixels(frames)
        config = self.settings.config
        edge = self.settings.told("patch_size", config.vision_config.patch_size) * config.spatial_pool_stride
        height, width = pixels.shape[-2:]
        cells = (height // edge) * (width // edge)
        return Prepared(self.video * (len(frames) * cells), {"pixel_values_videos": pixels[None]})


class LlavaNextVideo(Family):
    """Cells are the vision tower's patches, pooled by ``spatial_pool_stride``."""

    model_types = ("llava_next_video",)
    preparation = CroppedFrames

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        config = core.config
        patches = config.vision_config.image_size // config.vision_config.patch_size
        # A convolution or a pooling that does not divide leaves out what is left over.
        side = patches // config.spatial_pool_stride
        return by_frame(self.places(core, inputs), side * side)


FAMILY = LlavaNextVideo()
