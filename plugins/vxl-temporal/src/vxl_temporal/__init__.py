"""Compressors that drop or merge what earlier frames told already."""

from vxl_temporal.dtd import DifferentialTokenDrop
from vxl_temporal.evs import EfficientVideoSampling

__all__ = ["DifferentialTokenDrop", "EfficientVideoSampling"]
