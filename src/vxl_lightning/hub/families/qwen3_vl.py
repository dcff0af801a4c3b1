"""Qwen3-VL: every frame of cells between its own timestamp and vision marks, M-RoPE within the frame."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.hub.families.qwen2_vl import Patches, Qwen2VL
from vxl_lightning.hub.frames import whole_cells
from vxl_lightning.hub.preparing import HALF, Prepared
from vxl_lightning.hub.settings import Settings


class TimedPatches(Patches):
    """As Qwen2-VL's, but pixels are counted over the whole video, and a pair of frames stands behind its mean time.

    The vision marks that the chat template writes stay around all of them, as in transformers from 5.10 on; they gave
    way before.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Qwen3VLVideoProcessor",)
    older: ClassVar[Mapping[str, str]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {
        **HALF,
        "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "max_video_tokens": 768,
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.start = settings.mark("vision_start_token", "<|vision_start|>")
        self.end = settings.mark("vision_end_token", "<|vision_end|>")

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that frames get."""
        side, most = self.patch * self.merge, self.most
        if self.settings.video.get("cap_pixels_per_frame"):
            cap = min(self.settings.number("max_video_tokens") * side * side, most // frames)
            most = max(cap, int(self.fewest * 1.05)) * frames
        if height < side or width < side:
            larger = max(side / height, side / width)
            height, width = int(height * larger), int(width * larger)
        # A video of one frame is shown as a pair.
        frames = max(frames, self.together)
        counted = round(frames / self.together) * self.together
        return whole_cells(height, width, side, self.fewest, most, frames, counted)

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        made = self.pixels(frames)
        steps, rows, columns = made["video_grid_thw"][0].tolist()
        cells = self.start + self.video * (rows * columns // self.merge**2) + self.end
        groups = [times[i * self.together : (i + 1) * self.together] for i in range(steps)]
        at = [(group[0] + group[-1]) / 2 for group in groups]
        return Prepared("".join(f"<{t:.1f} seconds>{cells}" for t in at), made)


class Qwen3VL(Qwen2VL):
    """Sizes are told as in Qwen2-VL; timestamps between the frames are text, and stay.

    Features of deeper vision layers that the model adds behind its first layers (DeepStack) follow their cells: those
    of a token are the mean over the cells that it carries.
    """

    model_types = ("qwen3_vl", "qwen3_vl_moe")
    preparation = TimedPatches


FAMILY = Qwen3VL()
