"""The presses of NVIDIA's kvpress as cache compressors; kvpress is imported when one is built."""

from vxl_kvpress.press import PressedCache

__all__ = ["PressedCache"]
