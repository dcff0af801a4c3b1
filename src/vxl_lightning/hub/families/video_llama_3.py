"""VideoLLaMA3: frames of any size, each behind its time."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.families.qwen2_vl import Patches
from vxl_lightning.hub.family import Family, Video, by_grid, told
from vxl_lightning.hub.frames import whole_cells
from vxl_lightning.hub.preparing import HALF, Prepared
from vxl_lightning.hub.settings import Settings


class SharedPatches(Patches):
    """As Qwen2-VL's, but frames are not paired, and share the pixels that a whole video may have.

    The processor may leave out cells that hardly change. Here all are kept: what is left would be no grid, and leaving
    out is a compressor's to do.
    """

    kinds: ClassVar[tuple[str, ...]] = ("VideoLlama3VideoProcessor",)
    marks_kinds: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        **HALF,
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
        "patch_size": 14,
        "temporal_patch_size": 1,
        "merge_size": 2,
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if self.together != 1:
            raise settings.wrong("temporal_patch_size", self.together, "1, as every frame has a time of its own")

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that frames get."""
        return whole_cells(height, width, self.patch * self.merge, self.fewest, max(self.most // frames, 1))

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        made = self.pixels(frames)
        cells = int(made["video_grid_thw"][0, 1:].prod()) // self.merge**2
        made["video_merge_sizes"] = torch.tensor([self.merge])
        made["video_compression_mask"] = torch.ones(len(times) * cells, dtype=torch.bool)
        return Prepared(",".join(f"Time {t:.1f}s:{self.video * cells}" for t in times), made)


class VideoLlama3(Family):
    """``video_grid_thw`` counts patches, of which a video's own merge size squared become one cell.

    The processor may drop cells that hardly change from frame to frame, before the model sees them. What is left is no
    grid, so that must be switched off. Times are text, and stay.
    """

    model_types = ("video_llama_3",)
    preparation = SharedPatches

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
