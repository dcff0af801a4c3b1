"""What would fill a whole video's memory once more, taken a piece at a time."""

import torch
from torch import Tensor

# Numbers of a temporary tensor. On the CPU caches hold so many, and their memory is used again: new memory for a whole
# video costs more than the arithmetic on it. Elsewhere so many keep a device busy.
ON_CPU, ELSEWHERE = 1 << 20, 1 << 26

SMALLEST_NORM = 1e-8


def numbers_at_once(device: torch.device) -> int:
    """How many numbers a temporary tensor on ``device`` should have at most."""
    return ON_CPU if device.type == "cpu" else ELSEWHERE


def pieces(x: Tensor) -> tuple[Tensor, ...]:
    """``x`` cut along its first axis, so that temporary tensors of a piece's size have at most as many numbers."""
    parts: tuple[Tensor, ...] = x.split(max(1, numbers_at_once(x.device) // max(1, x[:1].numel())))
    return parts


@torch.no_grad()
def cosines(a: Tensor, b: Tensor) -> Tensor:
    """``[..., P]`` float32: the cosine of each cell of ``a [..., P, D]`` to its like in ``b``, which has that shape or
    is expanded to it. That of a zero vector is zero."""
    b = b.expand_as(a)
    if a.ndim > 2 and a[:1].numel() > numbers_at_once(a.device):
        return torch.stack([cosines(x, y) for x, y in zip(a, b, strict=True)])
    return torch.cat([_cosines(x, y) for x, y in zip(pieces(a), pieces(b), strict=True)])


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.float(), b.float()
    return (a * b).sum(-1) / (_norm(a) * _norm(b))


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm.clamp(min=SMALLEST_NORM)
