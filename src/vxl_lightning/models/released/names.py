"""How the tensors of a released checkpoint are named and shaped, and how ours are: rules that run both ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KERNEL = (2, 3, 4, 1, 0)
"""Axes of a convolution's weight ``[out, in, t, h, w]`` in the order ours has them, ``[t, h, w, in, out]``."""


@dataclass(frozen=True)
class Rule:
    """One of our tensors and the released ones it is made of. Values are moved, never computed: both ways are exact.

    Attributes:
        ours: name of our tensor.
        theirs: names of the released ones, stacked along the first axis.
        ones: trailing axes of length 1 that a released convolution has and our matrix has not.
        kernel: a 3x3x3 convolution, whose axes ours has in another order.
    """

    ours: str
    theirs: tuple[str, ...]
    ones: int = 0
    kernel: bool = False

    def to_ours(self, theirs: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(theirs)) if len(theirs) > 1 else theirs[0]
        if self.kernel:
            whole = whole.permute(KERNEL)
        return (whole.flatten(-1 - self.ones) if self.ones else whole).contiguous()

    def to_theirs(self, ours: Tensor) -> list[Tensor]:
        whole = ours.permute([KERNEL.index(axis) for axis in range(5)]) if self.kernel else ours
        whole = whole.reshape(*whole.shape, *[1] * self.ones)
        return [part.contiguous() for part in whole.chunk(len(self.theirs))]

    def shape(self, ours: Sequence[int]) -> tuple[int, ...]:
        """Shape of each released tensor when ours has this one."""
        return tuple(self.to_theirs(torch.empty(*ours, device="meta"))[0].shape)


def linear(ours: str, *theirs: str, ones: int = 0) -> list[Rule]:
    """Weight and bias of a linear map that was one or several layers, or convolutions over single cells."""
    return [
        Rule(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), ones),
        Rule(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)),
    ]


def video_xl_pro() -> list[Rule]:
    """The rules of Video-XL-Pro for what is neither its vision tower nor its language model."""
    dts, selector = "model.sae", "model.WindowTimeToTokenAttention"
    rules = [Rule("compressor.temporal_encoding", (f"{dts}.temporal_encoding",))]
    for first in (0, 3):
        space, time, conv = (f"{dts}.encoder.{first + i}" for i in range(3))
        a, b, c = (f"compressor.blocks.{first + i}" for i in range(3))
        rules += [
            *linear(f"{a}.norm", f"{space}.norm"),
            *linear(f"{a}.qkv", f"{space}.q", f"{space}.k", f"{space}.v", ones=3),
            *linear(f"{a}.out", f"{space}.proj_out", ones=3),
            *linear(f"{b}.norm", f"{time}.norm"),
            *linear(f"{b}.qkv", f"{time}.qkv", ones=1),
            *linear(f"{b}.out", f"{time}.proj_out", ones=1),
            *(
                Rule(f"{b}.relative_{x}", (f"{time}.relative_position_{x}.embeddings_table",))
                for x in ("k", "v")
            ),
            Rule(f"{c}.weight", (f"{conv}.conv.weight",), kernel=True),
            Rule(f"{c}.bias", (f"{conv}.conv.bias",)),
        ]  # fmt: skip
    for i in (0, 2):
        rules += linear(f"projector.layers.{i}", f"model.mm_projector.{i}")
    rules += linear("selector.text", "model.text_mlp.0")
    # The time tokens ask in the release's words, and are asked in ours: its queries are our keys.
    for ours, theirs in (("time", "q_proj"), ("visual", "k_proj"), ("out", "out_proj")):
        rules += linear(f"selector.{ours}", f"{selector}.{theirs}")
    return rules


UNUSED = tuple(f"model.WindowTimeToTokenAttention.v_proj.{x}" for x in ("weight", "bias"))
"""Tensors of a released checkpoint that nothing reads; they are kept for the way back."""
OPTIONAL = ("model.image_newline",)
"""Tensors that only some have, and that are not read for videos; kept too."""
TOWER = "model.vision_tower.vision_tower."
"""What the names of the vision tower's tensors begin with."""
