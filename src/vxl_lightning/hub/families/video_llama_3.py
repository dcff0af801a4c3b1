"""VideoLLaMA3: frames of any size, each behind its time."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import Family, Video, by_grid, told


class VideoLlama3(Family):
    """``video_grid_thw`` counts patches, of which a video's own merge size squared become one cell.

    The processor may drop cells that hardly change from frame to frame, before the model sees them. What is left is no
    grid, so that must be switched off. Times are text, and stay.
    """

    model_types = ("video_llama_3",)
    processing: ClassVar[Mapping[str, Any]] = {"use_token_compression": False}
    hears: ClassVar[Mapping[str, str]] = {"grid_thw": "video_grid_thw", "merge_sizes": "video_merge_sizes"}

    def vision(self, core: Any) -> Any:
        return core.vision_model

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        places = self.places(core, inputs)
        if not sum(map(len, places)):
            return []
        kept = inputs.get("video_compression_mask")
        if kept is not None and not bool(kept.all()):
            raise UserError(
                f"video_compression_mask drops {int((~kept).sum())} of {kept.numel()} cells before the model sees "
                "them; only a whole grid can be compressed: set use_token_compression=False in the processor"
            )
        sizes = told(inputs, "video_grid_thw").clone()
        sizes[:, 1:] //= told(inputs, "video_merge_sizes")[:, None]
        return by_grid(places, sizes, [1.0] * len(sizes))


FAMILY = VideoLlama3()
