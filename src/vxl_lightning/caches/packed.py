"""Tensors in a few bits a number."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Packed:
    """A tensor ``[..., m, d]`` in 4 or 2 bits: an asymmetric grid of its own for every channel over the m places.

    Attributes:
        codes: uint8, several codes a byte along m.
        low: ``[..., 1, d]``, the value of code 0.
        step: ``[..., 1, d]``, what one code more adds; a value is off by half of it at most.
        bits: of a code.
        length: m.
        raw: what was packed, while gradients flow through it; rounding passes them on as they are.
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    bits: int
    length: int
    raw: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, bits: int) -> "Packed":
        wide = x.detach().float()
        low, high = wide.amin(-2, keepdim=True), wide.amax(-2, keepdim=True)
        # The grid is what its stored step says, so that rounding it does not add to the error.
        step = ((high - low) / (2**bits - 1)).to(x.dtype)
        level = ((wide - low) / torch.where(step > 0, step, 1).float()).round().clamp(0, 2**bits - 1)
        each = 8 // bits
        parts = F.pad(level.to(torch.uint8), (0, 0, 0, -x.shape[-2] % each)).unflatten(-2, (-1, each))
        codes = (parts << _shifts(bits, x.device)).sum(-2, dtype=torch.uint8)
        return cls(codes, low.to(x.dtype), step, bits, int(x.shape[-2]), x if x.requires_grad else None)

    def restored(self) -> Tensor:
        level: Tensor = (self.codes.unsqueeze(-2) >> _shifts(self.bits, self.codes.device)) & (2**self.bits - 1)
        x: Tensor = level.flatten(-3, -2)[..., : self.length, :].to(self.step.dtype) * self.step + self.low
        return x if self.raw is None else self.raw + (x - self.raw).detach()

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.codes, self.low, self.step))


def _shifts(bits: int, device: torch.device) -> Tensor:
    return bits * torch.arange(8 // bits, device=device, dtype=torch.uint8)[:, None]
