"""Training-free compressors that cut a video into segments or graphs and reduce inside them."""

from vxl_segments.holitom import HoliTom
from vxl_segments.llava_scissor import LLaVAScissor
from vxl_segments.longvu import LongVU
from vxl_segments.prunevid import PruneVid

__all__ = ["HoliTom", "LLaVAScissor", "LongVU", "PruneVid"]
