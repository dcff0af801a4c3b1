"""Compressors that drop or merge what earlier frames told already."""

from vxl_temporal.dtd import DifferentialTokenDrop
from vxl_temporal.dycoke import TemporalTokenMerging
from vxl_temporal.evs import EfficientVideoSampling
from vxl_temporal.moviechat import MovieChatMemory
from vxl_temporal.streaming_tom import CausalTemporalReduction

__all__ = [
    "CausalTemporalReduction",
    "DifferentialTokenDrop",
    "EfficientVideoSampling",
    "MovieChatMemory",
    "TemporalTokenMerging",
]
