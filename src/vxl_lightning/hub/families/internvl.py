"""InternVL: the frames of a video are pictures, each behind its number."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from vxl_lightning.hub.family import Family, Video, by_frame
from vxl_lightning.hub.preparing import CLIP, Prepared, WholeFrames
from vxl_lightning.hub.settings import Settings


class NumberedFrames(WholeFrames):
    """A line a frame: its number, and its cells between marks."""

    kinds: ClassVar[tuple[str, ...]] = ("InternVLVideoProcessor",)
    defaults: ClassVar[Mapping[str, Any]] = {**CLIP, "size": {"height": 384, "width": 384}}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.image = settings.mark("context_image_token", "<IMG_CONTEXT>")
        self.start = settings.mark("start_image_token", "<img>")
        self.end = settings.mark("end_image_token", "</img>")

    def shown(self, frames: Tensor, times: Sequence[float]) -> Prepared:
        cells = self.settings.told("image_seq_length", self.settings.config.image_seq_length)
        shown = f"{self.start}{self.image * cells}{self.end}"
        text = "\n".join(f"Frame{number}: {shown}" for number in range(1, len(frames) + 1))
        return Prepared(text, {"pixel_values": self.pixels(frames)})


class InternVL(Family):
    """All pictures of a row are read as the frames of one video, in order; what names them is text, and stays."""

    model_types = ("internvl",)
    placeholder = "image_token_id"
    encodes = "get_image_features"
    preparation = NumberedFrames

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        return by_frame(self.places(core, inputs), core.config.image_seq_length, joined=True)


FAMILY = InternVL()
