"""InternVL: the frames of a video are pictures, each behind its number."""

from collections.abc import Mapping
from typing import Any

from vxl_lightning.hub.family import Family, Video, by_frame


class InternVL(Family):
    """All pictures of a row are read as the frames of one video, in order; what names them is text, and stays."""

    model_types = ("internvl",)
    placeholder = "image_token_id"

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        return by_frame(self.places(core, inputs), core.config.image_seq_length, joined=True)


FAMILY = InternVL()
