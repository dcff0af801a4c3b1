"""Qwen2-VL and Qwen2.5-VL: a video's cells in one piece, each at a position of time, height and width (M-RoPE)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.hub.family import Family, Video, by_grid, told
from vxl_lightning.hub.frames import normalised, patches, resized, whole_cells
from vxl_lightning.hub.preparing import CLIP, Preparation, Prepared, apart
from vxl_lightning.hub.settings import Settings


class Patches(Preparation):
    """Frames near to their own size, in patches, of which ``merge_size`` squared become one cell.

    Frames go together in pairs, the last one twice where their number is odd. Qwen2.5-VL is told how far apart in
    seconds the pairs are.

    Traits:
        older: what edges of ``size`` are called in older folders.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Qwen2VLVideoProcessor", "Qwen2_5_VLVideoProcessor")
    marks: ClassVar[tuple[str, str]] = ("<|video_pad|>", "<|image_pad|>")
    marks_kinds: ClassVar[bool] = True
    older: ClassVar[Mapping[str, str]] = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
    defaults: ClassVar[Mapping[str, Any]] = {
        **CLIP,
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "max_video_tokens": 128000,
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.patch, self.merge = settings.number("patch_size"), settings.number("merge_size")
        self.together = settings.number("temporal_patch_size")
        edges = dict(settings.video["size"]) if isinstance(settings.video["size"], dict) else {}
        edges |= {edge: settings.video[name] for edge, name in self.older.items() if name in settings.video}
        self.fewest, self.most = (settings.number(edge, edges) for edge in ("shortest_edge", "longest_edge"))

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that frames get, bounded by their own pixels and, if asked for, the video's."""
        side, most = self.patch * self.merge, self.most
        if self.settings.video.get("cap_pixels_per_frame"):
            every = int(self.settings.number("max_video_tokens") * side * side * 0.9)
            most = max(min(most, every * self.together // frames), int(self.fewest * 1.05))
        return whole_cells(height, width, side, self.fewest, most)

    def fitted(self, frames: Tensor, count: int) -> Tensor:
        """uint8 ``[t, 3, h, w]``: whole cells, unless the folder wants no resizing."""
        if not self.settings.video["do_resize"]:
            return frames
        height, width = self.size(count, *frames.shape[-2:])
        return resized(frames, height, width, self.mode)

    def pixels(self, frames: Tensor) -> dict[str, Tensor]:
        """Patches and how many there are in time, height and width."""
        # Cut as bytes: floats would be held twice meanwhile.
        cut, grid = patches(frames, self.patch, self.merge, self.together)
        pixels = normalised(cut.view(len(cut), 3, -1, self.patch), self.settings).flatten(1)
        return {"pixel_values_videos": pixels, "video_grid_thw": grid}

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        made = self.pixels(frames)
        cells = int(made["video_grid_thw"].prod()) // self.merge**2
        if self.settings.config.model_type == "qwen2_5_vl":
            made["second_per_grid_ts"] = torch.tensor([self.together * apart(times)])
        return Prepared(self.video * cells, made)


class Qwen2VL(Family):
    """``video_grid_thw`` counts patches, of which ``spatial_merge_size`` squared become one cell.

    Two frames of the video are one frame of cells. Qwen2.5-VL also tells how many seconds those are apart.
    """

    model_types = ("qwen2_vl", "qwen2_5_vl")
    preparation = Patches

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
