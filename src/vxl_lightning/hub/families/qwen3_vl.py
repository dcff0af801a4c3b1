"""Qwen3-VL: every frame of cells between its own timestamp and vision marks, M-RoPE within the frame."""

from vxl_lightning.hub.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    """Sizes are told as in Qwen2-VL; timestamps between the frames are text, and stay.

    Features of deeper vision layers that the model adds behind its first layers (DeepStack) follow their cells: those
    of a token are the mean over the cells that it carries.
    """

    model_types = ("qwen3_vl", "qwen3_vl_moe")


FAMILY = Qwen3VL()
