"""Compressors without training that prune with a view of the whole frame or video; one file each."""

from vxl_pruning.fastvid import FastVID
from vxl_pruning.vidcom2 import VidCom2
from vxl_pruning.visionzip import VisionZip

__all__ = ["FastVID", "VidCom2", "VisionZip"]
