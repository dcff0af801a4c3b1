"""SmolVLM2: the frames of a video are pictures, each behind its timestamp."""

from collections.abc import Mapping
from typing import Any

from vxl_lightning.hub.family import Family, Video, by_frame


class SmolVLM(Family):
    """All pictures of a row are read as the frames of one video, in order; timestamps and marks are text, and stay."""

    model_types = ("smolvlm",)
    placeholder = "image_token_id"

    def language_model(self, core: Any) -> Any:
        return core.text_model

    def videos(self, core: Any, inputs: Mapping[str, Any]) -> list[Video]:
        return by_frame(self.places(core, inputs), core.image_seq_len, joined=True)


FAMILY = SmolVLM()
