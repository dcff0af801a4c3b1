"""Any Hugging Face video model with any compressor between vision and language, without training."""

from vxl_lightning.hub.boundary import Boundary, compressing
from vxl_lightning.hub.report import Counts, Report

__all__ = ["Boundary", "Counts", "Report", "compressing"]
