"""Qwen2-VL and Qwen2.5-VL: a video's cells in one piece, each at a position of time, height and width (M-RoPE)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vxl_lightning.hub.family import Family, Video, by_grid, told


class Qwen2VL(Family):
    """``video_grid_thw`` counts patches, of which ``spatial_merge_size`` squared become one cell.

    Two frames of the video are one frame of cells. Qwen2.5-VL also tells how many seconds those are apart.
    """

    model_types = ("qwen2_vl", "qwen2_5_vl")
    hears: ClassVar[Mapping[str, str]] = {"grid_thw": "video_grid_thw"}

    def vision(self, core: Any) -> Any:
        return core.visual

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        places = self.places(core, inputs)
        if not sum(map(len, places)):
            return []
        sizes = told(inputs, "video_grid_thw").clone()
        sizes[:, 1:] //= core.config.vision_config.spatial_merge_size
        return by_grid(places, sizes, _apart(inputs.get("second_per_grid_ts"), len(sizes)))


def _apart(step: Any, videos: int) -> list[float]:
    """Seconds between frames of cells; one where nothing is told."""
    if step is None:
        return [1.0] * videos
    listed = [float(t) for t in step]
    return listed[:: max(1, len(listed) // videos)]  # beams repeat each


FAMILY = Qwen2VL()
