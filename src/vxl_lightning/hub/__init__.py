"""Any Hugging Face video model with any compressor between vision and language, without training."""

from vxl_lightning.hub.boundary import Boundary, compressing
from vxl_lightning.hub.load import load_hub
from vxl_lightning.hub.processing import Processing, load_processing
from vxl_lightning.hub.report import Counts, Report
from vxl_lightning.hub.video_lm import HubVideoLM

__all__ = ["Boundary", "Counts", "HubVideoLM", "Processing", "Report", "compressing", "load_hub", "load_processing"]
